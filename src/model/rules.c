/* Rules. No state. */
#include "model/rules.h"

#include <string.h>

#include "util/utf8.h"

#define NAME_MAX_CHARACTERS 256
#define PG_NAME_MAX_BYTES 63 /* NAMEDATALEN - 1, src/include/pg_config_manual.h of PostgreSQL */

/* Count the characters; false for bad UTF-8 or a control character (C0, DEL, C1). */
static bool count_characters(size_t *count, const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    *count = 0;
    while (*s) {
        size_t n = bough_utf8_length((const char *)s, 4);
        if (n == 0 || *s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0)) return false;
        s += n;
        (*count)++;
    }
    return true;
}

int bough_rule_name(const char *kind, const char *name, bough_error *err) {
    size_t count = 0;
    if (!name || strspn(name, " ") == strlen(name))
        return bough_fail(err, BOUGH_E_INVALID, "the name of a %s must not be empty", kind);
    if (!count_characters(&count, name))
        return bough_fail(err, BOUGH_E_INVALID, "the name of a %s must not hold control characters",
                          kind);
    if (count > NAME_MAX_CHARACTERS)
        return bough_fail(err, BOUGH_E_INVALID,
                          "the name of a %s is at most %d characters long, this has %zu", kind,
                          NAME_MAX_CHARACTERS, count);
    return BOUGH_OK;
}

int bough_rule_name_room(const char *name, const char *rest) {
    const char *s = name;
    size_t room = NAME_MAX_CHARACTERS, n;
    for (; *rest && room > 0; rest++) room -= (*rest & 0xc0) != 0x80;
    for (; *s && room > 0 && (n = bough_utf8_length(s, 4)) > 0; room--) s += n;
    return (int)(s - name);
}

int bough_rule_pg_name(const char *kind, const char *name, bough_error *err) {
    static const char *const kept[] = {"public",       "none",         "template0",
                                       "template1",    "bough_admin",  "bough_standby",
                                       "current_user", "session_user", "current_role"};
    size_t count = 0;
    if (!name || !*name)
        return bough_fail(err, BOUGH_E_INVALID, "the name of a %s must not be empty", kind);
    if (!count_characters(&count, name))
        return bough_fail(err, BOUGH_E_INVALID, "the name of a %s must not hold control characters",
                          kind);
    if (strlen(name) > PG_NAME_MAX_BYTES)
        return bough_fail(err, BOUGH_E_INVALID,
                          "the name of a %s is at most %d bytes long, this has %zu", kind,
                          PG_NAME_MAX_BYTES, strlen(name));
    bool is_kept = strncmp(name, "pg_", 3) == 0;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) is_kept |= strcmp(name, kept[i]) == 0;
    if (is_kept) return bough_fail(err, BOUGH_E_INVALID, "the name \"%s\" is reserved", name);
    return BOUGH_OK;
}

int bough_rule_suspend_timeout(long long seconds, int least, bough_error *err) {
    if (seconds == -1 || seconds == 0 || (seconds >= least && seconds <= 604800)) return BOUGH_OK;
    return bough_fail(
        err, BOUGH_E_INVALID,
        "suspend_timeout_seconds is -1 (never), 0 (the default) or %d to 604800, not %lld", least,
        seconds);
}

int bough_rule_size(int least_quarters, int most_quarters, bough_error *err) {
    if (least_quarters < 1 || most_quarters > BOUGH_SIZE_MOST_QUARTERS)
        return bough_fail(err, BOUGH_E_INVALID, "a size is 0.25 to %d compute units",
                          BOUGH_SIZE_MOST_QUARTERS / 4);
    if (least_quarters > most_quarters)
        return bough_fail(err, BOUGH_E_INVALID,
                          "autoscaling_limit_min_cu is above autoscaling_limit_max_cu");
    return BOUGH_OK;
}

int bough_rule_retention(long long seconds, bough_error *err) {
    enum { MOST = 35 * 86400 };
    if (seconds >= 0 && seconds <= MOST) return BOUGH_OK;
    return bough_fail(err, BOUGH_E_INVALID,
                      "\"history_retention_seconds\" must be between 0 and %d", MOST);
}
