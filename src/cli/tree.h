/**
 * Arranging branches as a tree: parents before their children, which are in order of creation.
 */
#ifndef BOUGH_CLI_TREE_H
#define BOUGH_CLI_TREE_H

#include <stdbool.h>

#include "bough/branch.h"

#define CLI_STEM_MAX 512 /**< bytes of a stem; deeper branches lose its left end's lines */

/** A branch at its place. */
typedef struct cli_tree_row {
    const bough_branch *branch; /**< of the list */
    int level;                  /**< 0 for a root */
    char stem[CLI_STEM_MAX];    /**< what is drawn before the name; "" where nothing is drawn */
} cli_tree_row;

/**
 * Arrange. A branch whose parent is not in the list is a root; none is lost, even in a cycle.
 *
 * @param[out] rows  list->count rows; free() them.
 * @param list       The branches.
 * @param draw       Fill in stems.
 * @param utf8       Draw with box characters rather than ASCII.
 */
BOUGH_CHECK int cli_tree_arrange(cli_tree_row **rows, const bough_branch_list *list, bool draw,
                                 bool utf8, bough_error *err);

#endif
