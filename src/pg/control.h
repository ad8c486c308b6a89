/** The one thing needed of pg_control: how a cluster was shut down. Any thread. */
#ifndef BOUGH_PG_CONTROL_H
#define BOUGH_PG_CONTROL_H

#include <stdbool.h>

#include "bough/error.h"

/**
 * Whether a plain PGDATA was shut down cleanly.
 *
 * @retval BOUGH_E_CORRUPT  pg_control is missing or too short.
 */
BOUGH_CHECK int bough_control_clean(bool *clean, const char *pgdata, bough_error *err);

#endif
