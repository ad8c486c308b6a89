/**
 * POST /sql: queries by HTTP, as @neondatabase/serverless sends them (contract: Neon's SQL over
 * HTTP). There is no API key: the header Neon-Connection-String has a role and its password, and a
 * connection with them is made through the front door for each request, like any client's. So
 * whatever holds there holds here: waking, limits, allow-lists, passwords, sessions that keep a
 * compute awake.
 */
#ifndef BOUGH_SERVER_HTTP_SQL_H
#define BOUGH_SERVER_HTTP_SQL_H

#include "server/http.h"

/** No request's body is larger: Neon's limit. */
#define SQL_BODY_MAX ((size_t)10 * 1024 * 1024)
/** So long may a request take where nothing else is said, with waking. */
#define SQL_SECONDS 60

/** A request_handler. */
BOUGH_CHECK int sql_handle(request *rq, bough_error *err);

#endif
