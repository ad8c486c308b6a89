/**
 * Reading request bodies. What is accepted acts: a field that is neither known nor harmless is
 * refused.
 */
#ifndef BOUGH_SERVER_BODY_H
#define BOUGH_SERVER_BODY_H

#include <jansson.h>
#include <stdbool.h>

#include "util/error.h"

/**
 * Refuse fields that are not in `known`, a NULL-terminated list.
 * @retval BOUGH_E_UNSUPPORTED
 */
BOUGH_CHECK int body_check(const json_t *object, const char *where, const char *const *known,
                           bough_error *err);

/** Get a member object; absent gives an empty one, borrowed from `keep`, which the caller decrefs.
 */
BOUGH_CHECK int body_object(json_t **out, json_t **keep, const json_t *object, const char *name,
                            bough_error *err);

/** Get an optional text: NULL when absent or null. Refuses other types and embedded NUL bytes. */
BOUGH_CHECK int body_text(const char **out, const json_t *object, const char *name,
                          bough_error *err);

/** Get an optional integer, `otherwise` when absent or null. */
BOUGH_CHECK int body_int(long long *out, const json_t *object, const char *name,
                         long long otherwise, bough_error *err);

/** Get an optional boolean. */
BOUGH_CHECK int body_bool(bool *out, const json_t *object, const char *name, bool otherwise,
                          bough_error *err);

/** Refuse a member that asks for something: present and neither null, false, "" nor empty. */
BOUGH_CHECK int body_refuse(const json_t *object, const char *name, const char *why,
                            bough_error *err);

#endif
