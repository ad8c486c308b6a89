/**
 * What branch.c and lifecycle.c share. Internal to libbough.
 */
#ifndef BOUGH_CLIENT_BRANCH_H
#define BOUGH_CLIENT_BRANCH_H

#include <jansson.h>
#include <stdbool.h>

#include "bough/branch.h"

/** A box of its own for one object of an answer (a reference is taken). */
BOUGH_CHECK int bough_branch_boxed(bough_branch **branch, json_t *object, bough_error *err);

/** A list of the objects in an array (a reference is taken). */
BOUGH_CHECK int bough_branch_listed(bough_branch_list **list, json_t *array, bough_error *err);

/** Add what is set of an expiry to a body's object; false when memory ran out, or a text is no
 * UTF-8. */
bool bough_branch_pack_expiry(json_t *branch, const bough_branch_expiry *expiry);

#endif
