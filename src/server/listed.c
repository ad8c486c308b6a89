/* Branches as the text of a list. See listed.h. */
#include "server/listed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/answer.h"
#include "server/usages.h"

#define FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(6)) /* as answers are written (http.c) */

enum { CHAINS = 1024, FORGET_MS = 60000, SWEEP_LEAST = 256 };

/* What a branch's text was made of, and the text, without the closing brace. */
typedef struct listed_text {
    struct listed_text *next;
    bough_branch_row row;
    bough_usage usage;
    bool is_measured, is_brief;
    char *text;
    size_t size;
    double used_ms;
} listed_text;

struct listed {
    pthread_mutex_t mutex;
    listed_text *chains[CHAINS];
    size_t n, sweep_at; /* when there are so many, those of branches that are gone go */
};

int listed_new(struct listed **out, bough_error *err) {
    struct listed *l = *out = calloc(1, sizeof *l);
    if (!l) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    pthread_mutex_init(&l->mutex, NULL);
    l->sweep_at = SWEEP_LEAST;
    return BOUGH_OK;
}

static void text_free(listed_text *t) {
    free(t->text);
    free(t);
}

void listed_free(struct listed *l) {
    if (!l) return;
    for (size_t i = 0; i < CHAINS; i++)
        for (listed_text *t = l->chains[i], *next; t; t = next) {
            next = t->next;
            text_free(t);
        }
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

/* (mutex) What nobody has listed for a while; with few it may as well stay. */
static void sweep(struct listed *l, double now_ms) {
    for (size_t i = 0; i < CHAINS; i++)
        for (listed_text **at = &l->chains[i]; *at;) {
            listed_text *t = *at;
            if (now_ms - t->used_ms < FORGET_MS) {
                at = &t->next;
                continue;
            }
            *at = t->next;
            text_free(t);
            l->n--;
        }
    l->sweep_at = l->n * 2 > SWEEP_LEAST ? l->n * 2 : SWEEP_LEAST;
}

/* (mutex) Where a text of a branch is, or would be. */
static listed_text **find(struct listed *l, const char *branch, bool is_brief) {
    unsigned hash = 2166136261U; /* FNV-1a */
    for (const char *p = branch; *p; p++) hash = (hash ^ (unsigned char)*p) * 16777619U;
    listed_text **at = &l->chains[hash % CHAINS];
    while (*at && ((*at)->is_brief != is_brief || strcmp((*at)->row.id, branch) != 0))
        at = &(*at)->next;
    return at;
}

static bool is_same(const listed_text *t, const bough_branch_row *row, const bough_usage *usage) {
    if (memcmp(&t->row, row, sizeof *row) != 0 || t->is_measured != (usage != NULL)) return false;
    return !usage ||
           (t->usage.own_bytes == usage->own_bytes &&
            t->usage.shared_bytes == usage->shared_bytes &&
            t->usage.history_bytes == usage->history_bytes && t->usage.depth == usage->depth);
}

/* Append what is kept. */
static bool copy(bough_json_buffer *out, struct listed *l, const bough_branch_row *row,
                 const bough_usage *usage, bool is_brief, double now_ms) {
    pthread_mutex_lock(&l->mutex);
    listed_text *t = *find(l, row->id, is_brief);
    bool is_known = t && is_same(t, row, usage);
    if (is_known) {
        bough_json_add(out, t->text, t->size);
        t->used_ms = now_ms;
    }
    pthread_mutex_unlock(&l->mutex);
    return is_known;
}

/* Takes `text`. Where memory runs out it is written anew the next time. */
static void keep(struct listed *l, const bough_branch_row *row, const bough_usage *usage,
                 bool is_brief, char *text, size_t size, double now_ms) {
    pthread_mutex_lock(&l->mutex);
    if (l->n >= l->sweep_at) sweep(l, now_ms);
    listed_text **at = find(l, row->id, is_brief), *t = *at;
    if (!t && (t = *at = calloc(1, sizeof *t))) l->n++;
    if (t) {
        free(t->text);
        memcpy(&t->row, row, sizeof *row);
        t->is_measured = usage != NULL;
        t->is_brief = is_brief;
        if (usage) t->usage = *usage;
        t->text = text;
        t->size = size;
        t->used_ms = now_ms;
    } else {
        free(text);
    }
    pthread_mutex_unlock(&l->mutex);
}

static void add_fixed(bough_json_buffer *out, server *srv, const bough_branch_row *row,
                      const bough_usage *usage, bool is_brief) {
    double now_ms = bough_now_ms();
    bough_json_buffer fresh = {0};
    size_t size;
    if (copy(out, srv->listed, row, usage, is_brief, now_ms)) return;
    json_t *b = is_brief ? answer_branch_brief(row, usage) : answer_branch_fixed(row, usage);
    bough_json_add_value(&fresh, b, FLAGS);
    json_decref(b);
    char *text = bough_json_take(&fresh, &size);
    if (!text || !answer_is_whole()) { /* half of it must not be kept */
        free(text);
        out->failed = true;
        return;
    }
    bough_json_add(out, text, --size);
    keep(srv->listed, row, usage, is_brief, text, size, now_ms);
}

/* What cannot be kept: the clock and other tables tell it. */
static void add_more(bough_json_buffer *out, server *srv, const bough_branch_row *row) {
    bough_json_buffer fresh = {0};
    size_t size;
    json_t *more = json_object();
    answer_branch_more(more, srv, row);
    bough_json_add_value(&fresh, more, FLAGS);
    char *text = bough_json_take(&fresh, &size);
    if (!text) {
        out->failed = true;
    } else if (size > 2) { /* "{...}" */
        bough_json_add(out, ",", 1);
        bough_json_add(out, text + 1, size - 2);
    }
    free(text);
    json_decref(more);
}

void listed_add(bough_json_buffer *out, server *srv, const bough_branch_row *row,
                const bough_project_row *project, bool is_brief) {
    bough_usage usage;
    char when[40], member[80];
    bool is_measured = usage_get(&usage, srv, row->id, USAGE_LISTED_MS);
    add_fixed(out, srv, row, is_measured ? &usage : NULL, is_brief);
    if (answer_branch_has_more(row)) add_more(out, srv, row);
    if (is_measured && !is_brief && answer_history_begins(when, sizeof when, project, &usage)) {
        int n = snprintf(member, sizeof member, ",\"history_begins_at\":\"%s\"", when);
        bough_json_add(out, member, (size_t)n);
    }
    bough_json_add(out, "}", 1);
}
