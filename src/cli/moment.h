/* Moments as people write them. */
#ifndef BOUGH_CLI_MOMENT_H
#define BOUGH_CLI_MOMENT_H

#include <stddef.h>

#include "bough/error.h"

/**
 * Read an LSN ("0/A27BB60"), a time ("2026-11-23 14:03:07.25+01"; without a zone it is local) or an
 * age
 * ("2 hours ago").
 *
 * @param[out] out  What the API takes: the LSN, or the time of RFC 3339 in UTC. 64 bytes suffice.
 * @retval BOUGH_E_USAGE  It is none of these.
 */
BOUGH_CHECK int cli_moment(char *out, size_t size, const char *text, bough_error *err);

#endif
