/**
 * Ids as Neon makes them: two words and six digits. Any thread.
 */
#ifndef BOUGH_MODEL_IDS_H
#define BOUGH_MODEL_IDS_H

#include "model/catalogue.h"

/** Random bytes from the kernel. */
BOUGH_CHECK int bough_random(void *out, size_t size, bough_error *err);

/**
 * Make an id that no table has.
 * @param id      Of BOUGH_ID_SIZE.
 * @param prefix  "", "br-" or "ep-".
 */
BOUGH_CHECK int bough_ids_new(char *id, bough_catalogue *cat, const char *prefix, bough_error *err);

/** A random UUID (version 4) into `id` of BOUGH_ID_SIZE. */
BOUGH_CHECK int bough_ids_uuid(char *id, bough_error *err);

/** Longest endpoint id, for the length of socket paths. */
#define BOUGH_ENDPOINT_ID_MAX 23

#endif
