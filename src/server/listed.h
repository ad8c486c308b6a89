/**
 * Branches as the text of a list. What a row and its bytes tell is written once, and kept for as
 * long as both stay the same to the byte: a list of a thousand branches is mostly copied. Any
 * thread.
 */
#ifndef BOUGH_SERVER_LISTED_H
#define BOUGH_SERVER_LISTED_H

#include "server/server.h"
#include "util/jsontext.h"

struct listed;

BOUGH_CHECK int listed_new(struct listed **listed, bough_error *err);
void listed_free(struct listed *listed);

/**
 * Append a branch, as answer_branch() would tell it; its bytes may be as of a moment ago
 * (server/usages.h).
 * @param row      As the catalogue gave it: zeros where it holds nothing.
 * @param project   Its project.
 * @param is_brief  Only what a table of branches shows, and what answer_branch_more() tells.
 */
void listed_add(bough_json_buffer *out, server *srv, const bough_branch_row *row,
                const bough_project_row *project, bool is_brief);

#endif
