/**
 * Reading PostgreSQL's messages: why did it end, what did a tool say. Any thread.
 */
#ifndef BOUGH_PG_PGLOG_H
#define BOUGH_PG_PGLOG_H

#include <stddef.h>
#include <sys/types.h>

/**
 * Find the last FATAL, PANIC or ERROR of a log, or failing that its last line.
 *
 * @param[out] line  The message without its prefix.
 * @param[out] hint  The HINT that follows it, or empty.
 * @param[out] code  BOUGH_E_NOSPACE when it says so; else left alone.
 * @param path       The log.
 * @param from       Where to begin, in bytes.
 * @return 0, or -1 when the log is empty or cannot be read.
 */
int bough_pglog_failure(char *line, size_t size, char *hint, size_t hint_size, int *code,
                        const char *path, off_t from);

/**
 * The message in a line of a log or of a tool's output, without prefix: what follows "FATAL:  ",
 * "ERROR:  " or "PANIC:  ". NULL when it is none.
 */
const char *bough_pglog_message(const char *line);

/** BOUGH_E_NOSPACE when the text says that the disk is full, else `otherwise`. */
int bough_pglog_code(const char *text, int otherwise);

#endif
