/* Reading request bodies. No state. */
#include "server/body.h"

#include <string.h>

#include "util/error.h"
#include "util/jsontext.h"

int body_check(const json_t *object, const char *where, const char *const *known,
               bough_error *err) {
    json_t *copy = bough_json_copy(object); /* the iterator wants one that is not const */
    int rc = copy ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    for (void *at = json_object_iter(copy); at && !rc; at = json_object_iter_next(copy, at)) {
        const char *key = json_object_iter_key(at);
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0) i++;
        if (known[i]) continue;
        rc = bough_fail(err, BOUGH_E_UNSUPPORTED, "field \"%s%s%.100s\" is not supported", where,
                        *where ? "." : "", key);
    }
    json_decref(copy);
    return rc;
}

int body_object(json_t **out, json_t **keep, const json_t *object, const char *name,
                bough_error *err) {
    json_t *value = json_object_get(object, name);
    *keep = NULL;
    if (value && !json_is_null(value) && !json_is_object(value))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be an object", name);
    *out = *keep = json_is_object(value) ? json_incref(value) : json_object();
    return *out ? BOUGH_OK : bough_fail(err, BOUGH_E_NOMEM, "out of memory");
}

int body_text(const char **out, const json_t *object, const char *name, bough_error *err) {
    const json_t *value = json_object_get(object, name);
    *out = NULL;
    if (!value || json_is_null(value)) return BOUGH_OK;
    const char *text = json_string_value(value);
    if (!text || strlen(text) != json_string_length(value))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be a string", name);
    *out = text;
    return BOUGH_OK;
}

int body_int(long long *out, const json_t *object, const char *name, long long otherwise,
             bough_error *err) {
    const json_t *value = json_object_get(object, name);
    *out = otherwise;
    if (!value || json_is_null(value)) return BOUGH_OK;
    if (!json_is_integer(value))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be an integer", name);
    *out = json_integer_value(value);
    return BOUGH_OK;
}

int body_bool(bool *out, const json_t *object, const char *name, bool otherwise, bough_error *err) {
    const json_t *value = json_object_get(object, name);
    *out = otherwise;
    if (!value || json_is_null(value)) return BOUGH_OK;
    if (!json_is_boolean(value))
        return bough_fail(err, BOUGH_E_INVALID, "\"%s\" must be true or false", name);
    *out = json_is_true(value);
    return BOUGH_OK;
}

int body_refuse(const json_t *object, const char *name, const char *why, bough_error *err) {
    const json_t *value = json_object_get(object, name);
    if (!value || json_is_null(value) || json_is_false(value)) return BOUGH_OK;
    if (json_is_string(value) && json_string_length(value) == 0) return BOUGH_OK;
    if ((json_is_object(value) && json_object_size(value) == 0) ||
        (json_is_array(value) && json_array_size(value) == 0))
        return BOUGH_OK;
    return bough_fail(err, BOUGH_E_UNSUPPORTED, "\"%s\": %s", name, why);
}
