/**
 * Taking the password out of a connection URI, so that no list of processes shows it.
 */
#ifndef BOUGH_CLI_URI_H
#define BOUGH_CLI_URI_H

#include "bough/error.h"

/**
 * Split a URI.
 *
 * @param[out] bare      The URI without its password; free() it.
 * @param[out] password  Decoded; NULL where there is none; free() it.
 * @param uri            postgres:// or postgresql://; a password between user and host, or as the
 *                       parameter "password", is understood, as libpq does.
 */
BOUGH_CHECK int uri_split(char **bare, char **password, const char *uri, bough_error *err);

#endif
