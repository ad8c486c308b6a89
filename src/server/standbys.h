/**
 * Computes of endpoints that only read: hot standbys of their branch's own compute.
 *
 * Such a compute runs on a fork of the branch that is made when it wakes and thrown away when it
 * ends. It streams WAL from the branch's compute while that is awake, by its Unix socket; while it
 * sleeps there is no WAL. Why so, and what becomes of them when: docs/internals/read-only.md,
 * docs/adr/0009.
 *
 * All of it needs the branch's lock; any thread.
 */
#ifndef BOUGH_SERVER_STANDBYS_H
#define BOUGH_SERVER_STANDBYS_H

#include "pg/conf.h"
#include "server/server.h"

/** How long one may take until it can be read. Its recovery counts; the branch is locked for it. */
#define STANDBY_READY_MS 120000
/** 64 hexadecimal digits. */
#define STANDBY_SECRET_SIZE 65

struct entry;

/** Texts of a bough_conf. */
typedef struct standby_conf {
    char primary[BOUGH_PATH_MAX + 256], restore[BOUGH_PATH_MAX + 256];
} standby_conf;

/**
 * Make the files of one that is about to start; what it left before goes.
 * @param[out] carried  Settings of the branch, for bough_conf; flow_free_carried().
 */
BOUGH_CHECK int standby_make(char ***carried, server *srv, struct entry *e, bough_error *err);

/** What its configuration has beside that of any compute. @param[out] texts  Borrowed by `conf`. */
BOUGH_CHECK int standby_configure(bough_conf *conf, standby_conf *texts, server *srv,
                                  const struct entry *e, bough_error *err);

/** Throw away the files of one that has ended; none is success. */
void standby_discard(server *srv, const struct entry *e);

/** Put into the server's log why it ended, as far as its own log says. */
void standby_explain(server *srv, const struct entry *e);

/**
 * The branch's own compute has become awake, or has ended: let those that follow it know. One that
 * has too few connections for it is ended.
 */
void standbys_follow(server *srv, const char *branch);

/** End all of a branch, which is to show something else, or to go. */
BOUGH_CHECK int standbys_end(server *srv, const char *branch, const char *cause, bough_error *err);

/** The same, and remove what their endpoints have: with an endpoint or a branch they go. */
void standbys_remove(server *srv, const char *branch);

/** What an earlier server left: after all computes were adopted. */
void standbys_settle(server *srv, const char *branch);

/** Whether it is time for standby_check(). Without the lock. */
bool standby_is_due(const server *srv, const struct entry *e);
/** End one that has not followed for a while though the branch's compute is awake. */
void standby_check(server *srv, struct entry *e);

#endif
