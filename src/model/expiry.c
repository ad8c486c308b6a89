/* Rules of the life cycle. */
#include "model/expiry.h"

#include <string.h>

#include "util/when.h"

bool bough_expiry_is_temporary(const char *name) {
    return strncmp(name, "ci-", 3) == 0 || strncmp(name, "tmp-", 4) == 0;
}

static void set(bough_branch_row *row, int64_t expires_ms, int64_t now_ms) {
    row->expires_ms = expires_ms / 1000 * 1000;
    row->ttl_seconds = (row->expires_ms - now_ms + 999) / 1000;
}

/* Whether it may not be without an expiry. */
static bool must_expire(const bough_branch_row *row) {
    return bough_expiry_is_temporary(row->name) && !row->is_protected && !row->is_default &&
           *row->parent_id;
}

void bough_expiry_default(bough_branch_row *row, int64_t now_ms) {
    if (row->expires_ms || !must_expire(row)) return;
    set(row, now_ms + (int64_t)BOUGH_TEMPORARY_SECONDS * 1000 + 999, now_ms);
}

int bough_expiry_at(bough_branch_row *row, const char *text, int64_t now_ms, bough_error *err) {
    int64_t at;
    int rc = bough_when_time(&at, text, err);
    if (rc) return rc;
    if (at / 1000 * 1000 <= now_ms)
        return bough_fail(err, BOUGH_E_INVALID, "\"%.60s\" is not in the future", text);
    set(row, at, now_ms);
    return BOUGH_OK;
}

int bough_expiry_in(bough_branch_row *row, long long seconds, int64_t now_ms, bough_error *err) {
    if (seconds < 1 || seconds > BOUGH_LONGEST_SECONDS)
        return bough_fail(err, BOUGH_E_INVALID,
                          "a branch lives for 1 to %lld seconds before it expires, not %lld",
                          (long long)BOUGH_LONGEST_SECONDS, seconds);
    set(row, now_ms + seconds * 1000 + 999, now_ms); /* never earlier than was said */
    return BOUGH_OK;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void bough_expiry_renew(bough_branch_row *row, int64_t now_ms) {
    int64_t seconds = least(row->ttl_seconds, BOUGH_LONGEST_SECONDS), was_ms = row->expires_ms;
    set(row, now_ms + seconds * 1000 + 999, now_ms);
    if (row->expires_ms < was_ms) set(row, was_ms, now_ms);
}

int bough_expiry_stage(const bough_branch_row *row, int64_t now_ms) {
    if (!row->expires_ms) return 0;
    int64_t left_ms = row->expires_ms - now_ms;
    if (left_ms <= least(3600000, row->ttl_seconds * 100)) return 2;
    return left_ms <= least(86400000, row->ttl_seconds * 500);
}

int bough_rule_life(const bough_branch_row *row, bough_error *err) {
    if (!row->expires_ms) {
        if (!must_expire(row)) return BOUGH_OK;
        (void)bough_fail(err, BOUGH_E_PRECONDITION,
                         "branch \"%.200s\" always expires: its name begins with ci- or tmp-",
                         row->name);
        (void)bough_hint(err, "Rename it, or let it expire later.");
        return BOUGH_E_PRECONDITION;
    }
    const char *what = row->is_default     ? "is the default branch"
                       : row->is_protected ? "is protected"
                                           : NULL;
    if (!what) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" cannot have an expiry: it %s",
                     row->name, what);
    (void)bough_hint(err, "Clear its expiry (`bough branch set-expiration BRANCH --never`).");
    return BOUGH_E_PRECONDITION;
}

int bough_rule_may_change(const bough_branch_row *row, const char *what, bough_error *err) {
    if (!row->is_protected) return BOUGH_OK;
    (void)bough_fail(err, BOUGH_E_PRECONDITION, "branch \"%.200s\" is protected: it cannot be %s",
                     row->name, what);
    (void)bough_hint(err, "Lift its protection first: `bough branch unprotect BRANCH`.");
    return BOUGH_E_PRECONDITION;
}

int bough_rule_may_delete(const bough_branch_row *row, bough_error *err) {
    if (row->is_default)
        return bough_fail(err, BOUGH_E_PRECONDITION, "the default branch cannot be deleted");
    int rc = bough_rule_may_change(row, "deleted", err);
    if (rc || !row->has_live_children) return rc;
    (void)bough_fail(err, BOUGH_E_CONFLICT, "branch \"%.200s\" has child branches", row->name);
    (void)bough_hint(err, "Delete the branches made from it first.");
    return BOUGH_E_CONFLICT;
}
