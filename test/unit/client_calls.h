/*
 * Every call of libbough that talks to a server, each with something to ask for, and with the
 * results freed: for tests that do the same with all of them.
 */
#ifndef BOUGH_TEST_CLIENT_CALLS_H
#define BOUGH_TEST_CLIENT_CALLS_H

#include "bough/branch.h"
#include "bough/client.h"
#include "bough/endpoint.h"
#include "bough/key.h"
#include "bough/operation.h"
#include "bough/project.h"
#include "bough/server.h"
#include "bough/snapshot.h"

/* A call NAME that gives a TYPE, which FREE frees. */
#define CALL(name, type, freeing, call)                                                            \
    static int call_##name(bough_client *c, bough_error *err) {                                    \
        type *out = NULL;                                                                          \
        int rc = call;                                                                             \
        if ((rc == BOUGH_OK) != (out != NULL)) __builtin_trap();                                   \
        freeing(out);                                                                              \
        return rc;                                                                                 \
    }
#define PLAIN(name, call)                                                                          \
    static int call_##name(bough_client *c, bough_error *err) {                                    \
        return call;                                                                               \
    }

static const bough_branch_options branch_options = {.version = 1,
                                                    .name = "new",
                                                    .parent = "br-1",
                                                    .moment = "0/16B3748",
                                                    .expiry = {.ttl_seconds = 60, .mode = "wait"},
                                                    .is_schema_only = 1};
static const bough_branch_expiry expiry = {.expires_at = "2030-01-01T00:00:00Z", .mode = "cascade"};
static const bough_restore_options restore_options = {
    .source = "br-1", .moment = "2026-01-01T00:00:00Z", .preserve_under_name = "kept"};
static const bough_snapshot_options snapshot_options = {
    .version = 1, .name = "snap", .moment = "0/16B3748", .ttl_seconds = 60};
static const bough_snapshot_restore_options snapshot_restore = {
    .version = 1, .name = "back", .target = "br-1", .finalize = 1};
static const bough_key_options key_options = {.version = 1,
                                              .name = "key",
                                              .project = "p-1",
                                              .branch = "br-1",
                                              .expires_at = "2030-01-01T00:00:00Z"};
static const bough_project_options project_options = {
    .version = 1, .name = "p", .source = "postgres://h/d", .pg_version = 15};
static const bough_project_changes project_changes = {
    .version = 1, .name = "q", .history_retention_seconds = 60};
static const char *const allow_rules[] = {"10.0.0.0/8", "192.0.2.1"};

CALL(branch_create, bough_branch_created, bough_branch_created_free,
     bough_branch_create_with(&out, c, "p-1", &branch_options, err))
CALL(branch_all, bough_branch_list, bough_branch_list_free,
     bough_branch_get_all(&out, c, "p-1", err))
CALL(branch_brief, bough_branch_list, bough_branch_list_free,
     bough_branch_get_brief(&out, c, "p-1", err))
CALL(branch_deleted, bough_branch_list, bough_branch_list_free,
     bough_branch_get_deleted(&out, c, "p-1", err))
CALL(branch_find, bough_branch, bough_branch_free, bough_branch_find(&out, c, "p-1", "two", err))
CALL(branch_default, bough_branch, bough_branch_free, bough_branch_find(&out, c, "p-1", NULL, err))
CALL(branch_find_deleted, bough_branch, bough_branch_free,
     bough_branch_find_deleted(&out, c, "p-1", "two", err))
CALL(branch_rename, bough_branch, bough_branch_free,
     bough_branch_rename(&out, c, "p-1", "br-1", "other", err))
CALL(branch_restore, bough_branch, bough_branch_free,
     bough_branch_restore(&out, c, "p-1", "br-1", &restore_options, err))
PLAIN(branch_delete, bough_branch_delete(c, "p-1", "br-1", err))
PLAIN(branch_purge, bough_branch_purge(c, "p-1", "br-1", err))
CALL(branch_undelete, bough_branch, bough_branch_free,
     bough_branch_undelete(&out, c, "p-1", "br-1", "again", err))
CALL(branch_expiry, bough_branch, bough_branch_free,
     bough_branch_set_expiry(&out, c, "p-1", "br-1", &expiry, err))
CALL(branch_protect, bough_branch, bough_branch_free,
     bough_branch_set_protected(&out, c, "p-1", "br-1", 1, err))
CALL(branch_set_default, bough_branch, bough_branch_free,
     bough_branch_set_default(&out, c, "p-1", "br-1", err))
CALL(branch_detach, bough_branch, bough_branch_free,
     bough_branch_detach(&out, c, "p-1", "br-1", err))
PLAIN(branch_export, bough_branch_export(c, "p-1", "br-1", "/tmp/x", err))
CALL(endpoint_all, bough_endpoint_list, bough_endpoint_list_free,
     bough_endpoint_get_all(&out, c, "p-1", err))
CALL(endpoint_find, bough_endpoint, bough_endpoint_free,
     bough_endpoint_find(&out, c, "p-1", "br-1", err))
CALL(endpoint_start, bough_endpoint, bough_endpoint_free,
     bough_endpoint_start(&out, c, "p-1", "ep-1", err))
CALL(endpoint_suspend, bough_endpoint, bough_endpoint_free,
     bough_endpoint_suspend(&out, c, "p-1", "ep-1", err))
CALL(endpoint_resize, bough_endpoint, bough_endpoint_free,
     bough_endpoint_resize(&out, c, "p-1", "ep-1", 0.25, 2, err))
CALL(endpoint_restart, bough_endpoint, bough_endpoint_free,
     bough_endpoint_restart(&out, c, "p-1", "ep-1", err))
CALL(endpoint_why, bough_endpoint_reason, bough_endpoint_reason_free,
     bough_endpoint_why(&out, c, "p-1", "ep-1", err))
CALL(uri, char, bough_uri_free, bough_uri_get(&out, c, "p-1", "br-1", "d", "r", err))
CALL(uri_pooled, char, bough_uri_free,
     bough_uri_get_pooled(&out, c, "p-1", "br-1", NULL, NULL, err))
CALL(uri_socket, char, bough_uri_free, bough_uri_get_socket(&out, c, "p-1", "br-1", "d", "r", err))
CALL(key_create, bough_key, bough_key_free, bough_key_create(&out, c, &key_options, err))
CALL(key_all, bough_key_list, bough_key_list_free, bough_key_get_all(&out, c, err))
CALL(key_revoke, bough_key, bough_key_free, bough_key_revoke(&out, c, "1", err))
CALL(operations, bough_operation_list, bough_operation_list_free,
     bough_operation_get_newest(&out, c, "p-1", 10, err))
CALL(project_create, bough_project_created, bough_project_created_free,
     bough_project_create(&out, c, &project_options, err))
CALL(project_all, bough_project_list, bough_project_list_free, bough_project_get_all(&out, c, err))
CALL(project_find, bough_project, bough_project_free, bough_project_find(&out, c, "two", err))
CALL(project_allow, bough_project, bough_project_free,
     bough_project_set_allowed(&out, c, "p-1", allow_rules, 2, 1, err))
CALL(project_update, bough_project, bough_project_free,
     bough_project_update(&out, c, "p-1", &project_changes, err))
PLAIN(project_delete, bough_project_delete(c, "p-1", err))
CALL(snapshot_create, bough_snapshot, bough_snapshot_free,
     bough_snapshot_create(&out, c, "p-1", "br-1", &snapshot_options, err))
CALL(snapshot_all, bough_snapshot_list, bough_snapshot_list_free,
     bough_snapshot_get_all(&out, c, "p-1", err))
CALL(snapshot_restore, bough_branch, bough_branch_free,
     bough_snapshot_restore(&out, c, "p-1", "snap-1", &snapshot_restore, err))
CALL(status, bough_status, bough_status_free, bough_status_get(&out, c, err))
PLAIN(shutdown, bough_server_shutdown(c, 1, err))
PLAIN(clock, bough_server_confirm_clock(c, err))
CALL(usage, char, bough_server_text_free, bough_server_usage(&out, c, err))
CALL(gc, char, bough_server_text_free, bough_server_gc(&out, c, 1, err))

#define NAMED(name)                                                                                \
    { #name, call_##name }
static const struct client_call {
    const char *name;
    int (*run)(bough_client *client, bough_error *err);
} client_calls[] = {NAMED(branch_create),
                    NAMED(branch_all),
                    NAMED(branch_brief),
                    NAMED(branch_deleted),
                    NAMED(branch_find),
                    NAMED(branch_default),
                    NAMED(branch_find_deleted),
                    NAMED(branch_rename),
                    NAMED(branch_restore),
                    NAMED(branch_delete),
                    NAMED(branch_purge),
                    NAMED(branch_undelete),
                    NAMED(branch_expiry),
                    NAMED(branch_protect),
                    NAMED(branch_set_default),
                    NAMED(branch_detach),
                    NAMED(branch_export),
                    NAMED(endpoint_all),
                    NAMED(endpoint_find),
                    NAMED(endpoint_start),
                    NAMED(endpoint_suspend),
                    NAMED(endpoint_resize),
                    NAMED(endpoint_restart),
                    NAMED(endpoint_why),
                    NAMED(uri),
                    NAMED(uri_pooled),
                    NAMED(uri_socket),
                    NAMED(key_create),
                    NAMED(key_all),
                    NAMED(key_revoke),
                    NAMED(operations),
                    NAMED(project_create),
                    NAMED(project_all),
                    NAMED(project_find),
                    NAMED(project_allow),
                    NAMED(project_update),
                    NAMED(project_delete),
                    NAMED(snapshot_create),
                    NAMED(snapshot_all),
                    NAMED(snapshot_restore),
                    NAMED(status),
                    NAMED(shutdown),
                    NAMED(clock),
                    NAMED(usage),
                    NAMED(gc)};
enum { CLIENT_CALLS = sizeof client_calls / sizeof client_calls[0] };

#endif
