/**
 * Log lines: a constant message plus key-values, to standard error, as text or JSON. Thread-safe: a
 * line is one write(). Nothing secret may be passed.
 */
#ifndef BOUGH_UTIL_LOG_H
#define BOUGH_UTIL_LOG_H

#include "bough/error.h"

typedef enum bough_log_level {
    BOUGH_LOG_DEBUG,
    BOUGH_LOG_INFO,
    BOUGH_LOG_WARN,
    BOUGH_LOG_ERROR
} bough_log_level;

/** Set once at start: lowest level written, and whether lines are JSON. */
void bough_log_init(bough_log_level lowest, int json);

/**
 * Write a line.
 * @param level    Severity.
 * @param message  Constant text, lowercase.
 * @param ...      Pairs of const char *key, const char *value, ended by NULL.
 */
void bough_log(bough_log_level level, const char *message, ...) __attribute__((sentinel));

#endif
