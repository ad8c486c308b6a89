/* Walking through WAL records. See walscan.h. */
#include "store/walscan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/fs.h"
#include "util/lsn.h"

enum {
    PAGE = 8192,
    BUFFER = 32 * PAGE,
    SHORT_HEADER = 24, /* XLogPageHeaderData, aligned */
    LONG_HEADER = 40,  /* XLogLongPageHeaderData */
    RECORD_HEADER = 24,
    RECORD_MAX = 1020 * 1024 * 1024, /* XLogRecordMaxSize of 16 and later */
    FIRST_IS_CONTRECORD = 1,         /* xlp_info */
    FIRST_IS_OVERWRITE_CONTRECORD = 8,
    RM_XLOG = 0,
    RM_XACT = 1,
    XLOG_SWITCH = 0x40,
    XACT_OPMASK = 0x70,
    XACT_COMMIT = 0x00,
    XACT_ABORT = 0x20,
    XACT_COMMIT_PREPARED = 0x30,
    XACT_ABORT_PREPARED = 0x40,
    ID_DATA_SHORT = 255,
    ID_DATA_LONG = 254,
    ID_ORIGIN = 253,
    ID_TOPLEVEL_XID = 252
};

typedef struct reader {
    const bough_wal_source *source;
    int fd;
    uint64_t number; /* of the open segment */
    uint64_t at;     /* LSN of the buffer's first byte */
    size_t filled;
    unsigned char *buffer;
    bool is_missing; /* a segment is not there */
    int failure;     /* errno of the read or open that failed: not the end of the WAL */
} reader;

typedef struct record {
    uint64_t at, end;     /* end: behind its last byte, not aligned */
    uint64_t overwritten; /* it never came to its end: the page where the WAL goes on; 0: it did */
    uint32_t length;
    uint8_t info, rmid;
    unsigned char head[64]; /* its first bytes, header included */
    size_t n_head;
} record;

static uint32_t get32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t get64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t align8(uint64_t at) {
    return (at + 7) & ~(uint64_t)7;
}

/* ---- pages ---- */

static bool fill(reader *r, uint64_t page) {
    uint64_t number = page / r->source->segment_bytes, offset = page % r->source->segment_bytes;
    if (r->fd < 0 || r->number != number) {
        if (r->fd >= 0) close(r->fd);
        r->fd = r->source->open(r->source->context, r->source->tli, number);
        r->number = number;
        r->filled = 0;
        if (r->fd < 0) {
            if (errno == ENOENT)
                r->is_missing = true;
            else
                r->failure = errno;
            return false;
        }
    }
    size_t want = r->source->segment_bytes - offset < BUFFER
                      ? (size_t)(r->source->segment_bytes - offset)
                      : (size_t)BUFFER;
    ssize_t n = bough_pread_full(r->fd, r->buffer, want, (off_t)offset);
    if (n < 0) r->failure = errno; /* not the end of the WAL */
    r->at = page;
    r->filled = n > 0 ? (size_t)n & ~(size_t)(PAGE - 1) : 0;
    return r->filled >= PAGE;
}

/* The page that holds an LSN, if it is a page of this WAL; else NULL. */
static const unsigned char *get_page(reader *r, uint64_t lsn) {
    uint64_t page = lsn & ~(uint64_t)(PAGE - 1);
    if ((page < r->at || page + PAGE > r->at + r->filled ||
         page / r->source->segment_bytes != r->number) &&
        !fill(r, page))
        return NULL;
    const unsigned char *p = r->buffer + (page - r->at);
    return get64(p + 8) == page ? p : NULL; /* xlp_pageaddr */
}

static unsigned header_bytes(const reader *r, uint64_t page) {
    return page % r->source->segment_bytes == 0 ? LONG_HEADER : SHORT_HEADER;
}

/* ---- records ---- */

/*
 * Take `n` bytes of a record from *at on, over page ends; `out` may be NULL. False: the WAL ends,
 * or the record was given up (*overwritten).
 */
static bool take(reader *r, uint64_t *at, unsigned char *out, size_t n, uint64_t *overwritten) {
    while (n) {
        uint64_t page = *at & ~(uint64_t)(PAGE - 1);
        const unsigned char *p = get_page(r, page);
        if (!p) return false;
        if (*at == page) { /* a record goes on here */
            unsigned info = p[2] | (unsigned)p[3] << 8;
            if (!(info & FIRST_IS_CONTRECORD)) {
                if (info & FIRST_IS_OVERWRITE_CONTRECORD) *overwritten = page;
                return false;
            }
            *at += header_bytes(r, page);
        }
        size_t part = (size_t)(page + PAGE - *at) < n ? (size_t)(page + PAGE - *at) : n;
        if (out) {
            memcpy(out, p + (*at - page), part);
            out += part;
        }
        *at += part;
        n -= part;
    }
    return true;
}

/* Read the record at rec->at. False: there is none, or not all of it; its length is 0 where not
 * even that is known. */
static bool read_record(reader *r, record *rec, uint64_t previous) {
    uint64_t page = rec->at & ~(uint64_t)(PAGE - 1), at;
    rec->overwritten = 0;
    if (!get_page(r, page)) return false;
    if (rec->at == page) rec->at += header_bytes(r, page);
    at = rec->at;
    if (!take(r, &at, rec->head, RECORD_HEADER, &rec->overwritten)) return false;
    uint32_t length = get32(rec->head);
    rec->info = rec->head[16];
    rec->rmid = rec->head[17];
    if (length < RECORD_HEADER || length > RECORD_MAX) return false;
    if (previous && get64(rec->head + 8) != previous) return false;
    rec->length = length;
    uint32_t rest = rec->length - RECORD_HEADER;
    rec->n_head =
        RECORD_HEADER +
        (rest < sizeof rec->head - RECORD_HEADER ? rest : sizeof rec->head - RECORD_HEADER);
    if (!take(r, &at, rec->head + RECORD_HEADER, rec->n_head - RECORD_HEADER, &rec->overwritten) ||
        !take(r, &at, NULL, rec->length - rec->n_head, &rec->overwritten))
        return false;
    rec->end = at;
    return true;
}

/* The time of a commit or abort, in PostgreSQL's microseconds; false for other records. */
static bool time_of(int64_t *time, bool *commits, const record *rec) {
    unsigned op = rec->info & XACT_OPMASK;
    *commits = op == XACT_COMMIT || op == XACT_COMMIT_PREPARED;
    if (rec->rmid != RM_XACT || (!*commits && op != XACT_ABORT && op != XACT_ABORT_PREPARED))
        return false;
    size_t at = RECORD_HEADER;
    for (; at < rec->n_head; at++) {
        unsigned char id = rec->head[at];
        if (id == ID_ORIGIN) {
            at += 2;
        } else if (id == ID_TOPLEVEL_XID) {
            at += 4;
        } else {
            at += id == ID_DATA_SHORT ? 2 : id == ID_DATA_LONG ? 5 : sizeof rec->head;
            break;
        }
    }
    if (at + sizeof *time > rec->n_head) return false;
    memcpy(time, rec->head + at, sizeof *time);
    return true;
}

/* Where the next record begins. */
static uint64_t next_of(const reader *r, const record *rec) {
    uint64_t size = r->source->segment_bytes;
    if (rec->rmid == RM_XLOG && (rec->info & 0xf0) == XLOG_SWITCH)
        return (rec->end + size - 1) / size * size;
    return align8(rec->end);
}

static bool is_past(const record *rec, const bough_wal_wish *wish, bough_wal_found *found) {
    int64_t time;
    bool commits;
    if (rec->at < wish->not_before) return false;
    if (wish->lsn && rec->end > wish->lsn) return true;
    if (!time_of(&time, &commits, rec)) return false;
    int64_t us = time + BOUGH_PG_EPOCH_SECONDS * 1000000;
    if (wish->time_us && us > wish->time_us) return true;
    if (commits) {
        found->last_commit_us = us;
        found->commits++;
    }
    return false;
}

/* Where a record that is not all there would end. */
static uint64_t would_end(const reader *r, const record *rec) {
    uint64_t at = rec->at;
    for (uint64_t n = rec->length; n;) {
        if (at % PAGE == 0) at += header_bytes(r, at);
        uint64_t part = PAGE - at % PAGE < n ? PAGE - at % PAGE : n;
        at += part;
        n -= part;
    }
    return at;
}

static int unreadable(const reader *r, bough_error *err) {
    return bough_fail_sys(err, r->failure, "could not read WAL segment %" PRIu64, r->number);
}

int bough_wal_scan(bough_wal_found *found, const bough_wal_source *source,
                   const bough_wal_wish *wish, bough_error *err) {
    reader r = {.source = source, .fd = -1, .buffer = malloc(BUFFER)};
    record rec = {.at = wish->start};
    uint64_t previous = 0;
    memset(found, 0, sizeof *found);
    found->cut = wish->start;
    if (!r.buffer) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (;;) {
        rec.length = 0;
        if (wish->end && rec.at >= wish->end) break;
        if (!read_record(&r, &rec, previous)) {
            if (!rec.overwritten) break;
            rec.at = rec.overwritten; /* what a crash cut off; the WAL goes on at this page */
            continue;
        }
        if (wish->end && rec.end > wish->end) break;
        if (is_past(&rec, wish, found)) {
            found->is_stopped = true;
            break;
        }
        found->cut = rec.end;
        previous = rec.at;
        rec.at = next_of(&r, &rec);
    }
    found->missing = r.is_missing ? r.number : 0;
    found->reach = would_end(&r, &rec);
    if (r.fd >= 0) close(r.fd);
    free(r.buffer);
    if (r.failure) return unreadable(&r, err);
    if (found->cut > wish->start && (found->is_stopped || found->cut >= wish->not_before))
        return BOUGH_OK;
    if (r.is_missing)
        return bough_fail(err, BOUGH_E_NOTFOUND, "the WAL segment with %s is missing",
                          BOUGH_LSN_TEXT(rec.at));
    return bough_fail(err, BOUGH_E_NOTFOUND, "there is no WAL record at %s",
                      BOUGH_LSN_TEXT(rec.at));
}

int bough_wal_last_end(uint64_t *end, const bough_wal_source *source, uint64_t limit,
                       bough_error *err) {
    uint64_t page = limit - PAGE, first = limit;
    reader r = {.source = source, .fd = -1};
    bough_wal_found found;
    *end = limit;
    if (limit < PAGE || limit % PAGE) return BOUGH_OK;
    if (!(r.buffer = malloc(BUFFER))) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    const unsigned char *p = get_page(&r, page);
    if (p) {
        first = page + header_bytes(&r, page);
        if ((p[2] | (unsigned)p[3] << 8) & FIRST_IS_CONTRECORD)
            first = align8(first + get32(p + 16)); /* xlp_rem_len */
    }
    if (r.fd >= 0) close(r.fd);
    free(r.buffer);
    if (r.failure) return unreadable(&r, err);
    if (first >= limit) return BOUGH_OK;
    bough_wal_wish wish = {.start = first, .not_before = first + 1, .end = limit};
    *end = first;
    bough_error why = {0};
    int rc = bough_wal_scan(&found, source, &wish, &why);
    if (rc == BOUGH_OK) *end = found.cut;
    if (rc == BOUGH_OK || rc == BOUGH_E_NOTFOUND) return BOUGH_OK; /* no record begins there */
    if (err) *err = why;
    return rc;
}
