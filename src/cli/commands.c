/* The command tree. Parser, help, manual pages, completion and their tests are all driven by it. */
#include "cli/cli.h"

#define STORE CLI_USES_STORE
#define PROJECT (CLI_USES_STORE | CLI_USES_PROJECT)
#define DEFAULT_BRANCH "Without BRANCH, the project's default branch is meant. "
#define MOMENTS                                                                                    \
    "MOMENT is a time ('2026-11-23 14:03:07.25+01'; without a zone it is local), an age ('2 "      \
    "hours "                                                                                       \
    "ago') or an LSN (0/A27BB60)."
#define LOOKS                                                                                      \
    "BRANCH@MOMENT is a look at the branch's past: a branch of that moment whose "                 \
    "transactions are read-only unless they say otherwise; what they write then is "               \
    "gone with it. "
#define BY_NAME "Branches are named by name or id."
#define OF_ENDPOINT "An endpoint is named by its id, or the one that writes by its branch. "
#define WHICH_ENDPOINT                                                                             \
    {"endpoint-type", 0, "TYPE", "read_only: by an endpoint that only reads", 0, 0}, {             \
        "endpoint", 0, "ID", "By this endpoint of the branch", 0, 0                                \
    }

static const cli_option up_options[] = {
    {"port", 0, "N", "TCP port of the API on 127.0.0.1 (default: 7117, or a free one)", 1, 65535},
    {"listen", 0, "ADDRESS:PORT",
     "Where PostgreSQL's clients connect (default: 127.0.0.1:5433, or a free port)", 0, 0},
    {"domain", 0, "NAME", "Host names of endpoints are ID.NAME (default: localhost)", 0, 0},
    {"tls-cert", 0, "FILE", "Certificate and its chain, PEM (default: one of a local CA)", 0, 0},
    {"tls-key", 0, "FILE", "Key of the certificate, PEM, without a passphrase", 0, 0},
    {"max-awake", 0, "N", "Computes awake at once; unused ones make room (default: no limit)", 1,
     1000000},
    {"wakes-per-endpoint", 0, "N", "Times a minute that clients may wake one (default: 120)", 1,
     1000000},
    {"wakes-per-address", 0, "N",
     "Times a minute that one address may wake any (default: 60, this machine's own without limit)",
     1, 1000000},
    {"sql-seconds", 0, "N", "Time limit of a query over HTTP (default: 60)", 1, 86400},
    {"trusted-proxies", 0, "LIST",
     "Addresses, networks and ranges, with commas between, whose X-Forwarded-For counts", 0, 0},
    {"api-rate", 0, "N", "Requests a minute of an API key; 0 is no limit (default: 700)", 0,
     1000000000},
    {"api-burst", 0, "N", "Requests a second of an API key on one route (default: 40)", 1,
     1000000000},
    {"limit-local-key", 0, NULL, "Limit the key in the store's file, too", 0, 0},
    {"allow-cleartext", 0, NULL, "Let other machines connect without TLS", 0, 0},
    {0}};

static const cli_option store_gc_options[] = {
    {"dry-run", 0, NULL, "Only say what would go, and what each layer stays for", 0, 0}, {0}};

static const cli_option down_options[] = {
    {"keep-computes", 0, NULL, "Leave running computes to the next server", 0, 0}, {0}};

static const cli_option project_create_options[] = {
    {"from", 0, "SOURCE", "Import a running server or a dump (default: an empty database)", 0, 0},
    {"pg-version", 0, "N",
     "Major version of PostgreSQL (default: the source's, or the newest installed)", 13, 99},
    {0}};

static const cli_option project_update_options[] = {
    {"name", 0, "NAME", "Its name from now on", 0, 0},
    {"history-retention", 0, "DURATION", "How long the past is kept: 7d, 12h, 0; at most 35d", 0,
     0},
    {0}};

#define EXPIRES_IN                                                                                 \
    { "expires-in", 0, "DURATION", "Delete it after so long: 90m, 12h, 7d, 1d12h", 0, 0 }
#define EXPIRES_AT                                                                                 \
    { "expires-at", 0, "TIME", "Delete it at this time: 2026-12-31T18:00:00+01:00", 0, 0 }

static const cli_option expiration_options[] = {
    EXPIRES_IN,
    EXPIRES_AT,
    {"never", 0, NULL, "It does not expire", 0, 0},
    {"cascade", 0, NULL, "Branches made from it expire with it", 0, 0},
    {"wait", 0, NULL, "It waits for the end of branches made from it", 0, 0},
    {0}};

static const cli_option branch_list_options[] = {
    {"deleted", 0, NULL, "Those that are deleted and can be recovered instead", 0, 0}, {0}};

static const cli_option branch_delete_options[] = {
    {"purge", 0, NULL, "For good; also a branch that is deleted already", 0, 0}, {0}};

static const cli_option undelete_options[] = {
    {"name", 0, "NAME", "Its name from now on (default: the one it had)", 0, 0}, {0}};

static const cli_option delete_options[] = {{"yes", 'y', NULL, "Do not ask", 0, 0}, {0}};

static const cli_option branch_create_options[] = {
    {"parent", 0, "B", "Branch to start from, by name or id (default: the default branch)", 0, 0},
    {"at", 0, "MOMENT", "A moment of the parent's past: a time, an age or an LSN", 0, 0},
    EXPIRES_IN,
    EXPIRES_AT,
    {"temporary", 0, NULL, "Delete it after 24 hours", 0, 0},
    {"cascade", 0, NULL, "Branches made from it expire with it (default: it waits for them)", 0, 0},
    {"schema-only", 0, NULL, "The parent's roles and schema, without any row", 0, 0},
    {"protected", 0, NULL, "It cannot be deleted until `bough branch unprotect`", 0, 0},
    {0}};

#define PRESERVE                                                                                   \
    {                                                                                              \
        "preserve-under-name", 0, "NAME",                                                          \
            "Keep what the branch shows now as a branch of this name", 0, 0                        \
    }

static const cli_option branch_restore_options[] = {
    {"at", 0, "MOMENT", "A moment of the past: a time, an age or an LSN", 0, 0},
    {"from", 0, "B", "The branch to take it from (default: BRANCH itself)", 0, 0},
    PRESERVE,
    {0}};

static const cli_option branch_reset_options[] = {PRESERVE, {0}};

static const cli_option connect_options[] = {
    {"database", 'd', "NAME", "Database (default: the branch's first)", 0, 0},
    {"role", 'r', "NAME", "Role (default: the owner of the database)", 0, 0},
    WHICH_ENDPOINT,
    {0}};

static const cli_option endpoint_create_options[] = {
    {"type", 0, "TYPE", "read_only, or read_write (the default)", 0, 0},
    {"size", 0, "UNITS", "Compute units, as bough endpoint resize takes them (default: 1)", 0, 0},
    {0}};

static const cli_option cs_options[] = {
    {"database", 'd', "NAME", "Database (default: the branch's first)", 0, 0},
    {"role", 'r', "NAME", "Role (default: the owner of the database)", 0, 0},
    WHICH_ENDPOINT,
    {"pooled", 0, NULL, "By the branch's pooler: PgBouncer, in transaction mode", 0, 0},
    {"socket", 0, NULL, "Start the compute and name its Unix socket instead", 0, 0},
    {0}};

static const cli_option key_create_options[] = {
    {"for-project", 0, "P", "It sees this project alone, by name or id", 0, 0},
    {"for-branch", 0, "B", "It sees this branch of the project alone", 0, 0},
    {"read-only", 0, NULL, "It changes nothing, and is shown no passwords", 0, 0},
    {"expires-in", 0, "DURATION", "It is valid for so long: 90m, 12h, 30d", 0, 0},
    {"expires-at", 0, "TIME", "It is valid until then: 2026-12-31T18:00:00+01:00", 0, 0},
    {0}};

static const cli_option snapshot_create_options[] = {
    {"name", 0, "NAME", "What it is called (default: the branch and the time)", 0, 0},
    {"at", 0, "MOMENT", "A moment of the branch's past: a time, an age or an LSN", 0, 0},
    EXPIRES_IN,
    EXPIRES_AT,
    {0}};

static const cli_option snapshot_restore_options[] = {
    {"name", 0, "NAME", "What the new branch is called; with --finalize, the one it replaces", 0,
     0},
    {"target", 0, "B", "The branch to replace (default: the one that the snapshot is of)", 0, 0},
    {"finalize", 0, NULL, "Replace it at once", 0, 0},
    {0}};

static const cli_option snapshot_finalize_options[] = {
    {"old-name", 0, "NAME", "What the branch that is replaced is called then", 0, 0}, {0}};

static const cli_option snapshot_schedule_options[] = {
    {"clear", 0, NULL, "No snapshots are taken any more", 0, 0}, {0}};

static const cli_option operation_list_options[] = {
    {"limit", 0, "N", "How many, newest first (default: 50)", 1, 1000}, {0}};

static const cli_option help_options[] = {
    {"man", 0, NULL, "Print the manual page of all commands (troff) instead", 0, 0},
    {"list", 0, NULL, "Print the names of all commands instead", 0, 0},
    {0}};

static const cli_command project_commands[] = {
    {.name = "create",
     .summary = "Create a project",
     .words = "NAME",
     .min_words = 1,
     .max_words = 1,
     .uses = STORE,
     .options = project_create_options,
     .run = cmd_project_create,
     .details = "SOURCE is one of: a postgres:// URL of a running server, copied as pg_basebackup "
                "does, with its WAL streamed meanwhile (the role needs REPLICATION and "
                "pg_read_all_settings); the path of a dump made by pg_dump (custom, directory or "
                "plain format, or plain compressed by gzip); nothing, for an empty database.\n\n"
                "A project of that name made from the same source is success and is returned; one "
                "from another source is a conflict. An import shows its progress. Ctrl-C cancels "
                "it and leaves nothing behind.",
     .examples = "bough project create shop\n"
                 "bough project create shop --from postgres://postgres@db.example.com/\n"
                 "bough project create shop --from shop.dump --pg-version 15"},
    {.name = "list",
     .summary = "List projects",
     .uses = STORE,
     .run = cmd_project_list,
     .examples = "bough project list --json"},
    {.name = "get",
     .summary = "Show a project",
     .words = "[PROJECT]",
     .max_words = 1,
     .word = CLI_WORD_PROJECT,
     .uses = PROJECT,
     .run = cmd_project_get,
     .examples = "bough project get shop"},
    {.name = "update",
     .summary = "Change a project",
     .words = "[PROJECT]",
     .max_words = 1,
     .word = CLI_WORD_PROJECT,
     .uses = PROJECT,
     .options = project_update_options,
     .run = cmd_project_update,
     .details =
         "With a shorter history, what is older is forgotten within seconds, and with 0 all of "
         "it; a longer one does not bring back what is gone.",
     .examples = "bough project update shop --history-retention 14d\n"
                 "bough project update shop --name store"},
    {.name = "delete",
     .summary = "Delete a project and all of its branches",
     .words = "PROJECT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_PROJECT,
     .uses = STORE,
     .options = delete_options,
     .run = cmd_project_delete,
     .details = "Asks first when standard input is a terminal. There is no way back.",
     .examples = "bough project delete shop --yes"},
    {0}};

static const cli_command branch_commands[] = {
    {.name = "create",
     .summary = "Create a branch and start it",
     .words = "NAME",
     .min_words = 1,
     .max_words = 1,
     .uses = PROJECT,
     .options = branch_create_options,
     .run = cmd_branch_create,
     .details =
         "The branch is a writable copy of its parent as it is now, or with --at as it was; "
         "the parent is not disturbed. A branch of that name with the same parent and moment "
         "is success and is returned; with another one it is a conflict.\n\n" MOMENTS
         " The branch has what was committed by then, and not the next transaction.\n\n"
         "A branch that expires is deleted as by `bough branch delete`, and can be "
         "recovered for 7 days. One whose name begins with ci- or tmp- always expires: after "
         "24 hours where nothing else is said. A branch that exists keeps its expiry. A "
         "child of a protected branch has new passwords.\n\n"
         "With --schema-only it has the parent's databases, roles, extensions, tables and grants, "
         "and no row of its own: it shares no file with the parent, is a root branch, and its "
         "sequences begin anew. One of that name is a conflict then.\n\n"
         "With --json: {\"branch\", \"connection_uri\", \"timings_ms\": {\"checkpoint\", "
         "\"seal\", \"gate\", \"create\", \"start\", \"ready\", \"total\"}, \"existing\"}.",
     .examples = "bough branch create try-index\n"
                 "bough branch create demo --expires-in 7d\n"
                 "bough branch create fix --parent staging --json\n"
                 "bough branch create before --at '2 hours ago'"},
    {.name = "list",
     .summary = "List branches",
     .uses = PROJECT,
     .options = branch_list_options,
     .run = cmd_branch_list,
     .details = "On a terminal the branches are shown as a tree; * marks the default branch. Own "
                "bytes are allocated for that branch alone, shared bytes are in layers that other "
                "branches use too. NOTES tells of protection and expiry; \"soon\" is within a day, "
                "or within half of a shorter lifetime.",
     .examples = "bough branch list --project shop"},
    {.name = "get",
     .summary = "Show a branch",
     .words = "[BRANCH]",
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_branch_get,
     .details = DEFAULT_BRANCH BY_NAME,
     .examples = "bough branch get try-index"},
    {.name = "rename",
     .summary = "Give a branch another name",
     .words = "BRANCH NAME",
     .min_words = 2,
     .max_words = 2,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_branch_rename,
     .examples = "bough branch rename try-index better-index"},
    {.name = "restore",
     .summary = "Let a branch show what it, or another one, showed",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = branch_restore_options,
     .run = cmd_branch_restore,
     .details =
         "The branch keeps its id, its name and its address; its connections end. What it showed "
         "is "
         "kept with --preserve-under-name, which is required where the branch is restored from its "
         "own past or has children; these move to the branch that is kept.\n\n" MOMENTS,
     .examples =
         "bough branch restore main --at '10 minutes ago' --preserve-under-name main-before\n"
         "bough branch restore dev --from main --at 0/A27BB60"},
    {.name = "reset",
     .summary = "Let a branch show what its parent shows",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = branch_reset_options,
     .run = cmd_branch_reset,
     .details = "As restore from the parent's present. What the branch showed is deleted, unless "
                "--preserve-under-name says under which name it is kept.",
     .examples = "bough branch reset dev"},
    {.name = "delete",
     .summary = "Delete a branch",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = branch_delete_options,
     .run = cmd_branch_delete,
     .details =
         "Its compute stops, its name is free, and for 7 days `bough branch undelete` brings "
         "it back; until then its files stay. Refused while the branch has children, is "
         "protected or is the default branch. --purge is refused, too, while "
         "deleted branches made from it can be recovered.",
     .examples = "bough branch delete try-index\n"
                 "bough branch delete try-index --purge"},
    {.name = "undelete",
     .summary = "Bring a deleted branch back",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_DELETED,
     .uses = PROJECT,
     .options = undelete_options,
     .run = cmd_branch_undelete,
     .details = "BRANCH is the name it had, or its id: see `bough branch list --deleted`. It comes "
                "back as it was, with its roles and passwords, and sleeps. Where its expiry has "
                "passed, it has its whole lifetime again. A deleted parent must be brought back "
                "first. Where its name is taken, say another with --name.",
     .examples = "bough branch undelete try-index\n"
                 "bough branch undelete try-index --name try-index-2"},
    {.name = "set-expiration",
     .summary = "Say when a branch expires",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = expiration_options,
     .run = cmd_branch_set_expiration,
     .details = "Then it is deleted, and can be recovered for 7 days. While branches made from it "
                "exist it waits, or takes them along (--cascade). Refused for protected "
                "and default branches; --never is refused where the name begins with ci- or tmp-. "
                "Warnings are in `bough branch list` and `bough operation list`, 24 hours and 1 "
                "hour before, or at half and a tenth of a shorter lifetime.",
     .examples = "bough branch set-expiration demo --expires-in 12h\n"
                 "bough branch set-expiration demo --never"},
    {.name = "protect",
     .summary = "Protect a branch",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_branch_protect,
     .details = "A protected branch cannot be deleted, nor can its project, and it cannot expire. "
                "Branches made from it from then on have new passwords for all roles.",
     .examples = "bough branch protect main"},
    {.name = "unprotect",
     .summary = "Lift the protection of a branch",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_branch_unprotect,
     .examples = "bough branch unprotect main"},
    {.name = "detach",
     .summary = "Make a branch independent of its parent",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_branch_detach,
     .details =
         "It is a root branch then, and what was its parent can be deleted. It keeps its data, "
         "its children and its own past; moments before it was made cannot be reached "
         "through it any more, and `bough branch reset` has nothing to go to. One without a "
         "parent is success.",
     .examples = "bough branch detach main && bough branch delete main-before"},
    {.name = "set-default",
     .summary = "Make a branch the default one",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_branch_set_default,
     .details =
         "The default branch is the one meant where none is named. It cannot be deleted, nor "
         "expire.",
     .examples = "bough branch set-default next"},
    {0}};

static const cli_command snapshot_commands[] = {
    {.name = "create",
     .summary = "Take a snapshot of a branch",
     .words = "[BRANCH]",
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = snapshot_create_options,
     .run = cmd_snapshot_create,
     .details = DEFAULT_BRANCH
     "The snapshot holds the branch's moment until it is deleted or expires, whatever becomes of "
     "the branch and of its history; it costs what has changed since. The branch is not "
     "disturbed, and one that sleeps is not woken.\n\n" MOMENTS,
     .examples = "bough snapshot create main --name before-migration\n"
                 "bough snapshot create --at '10 minutes ago' --expires-in 30d"},
    {.name = "list",
     .summary = "List snapshots",
     .uses = PROJECT,
     .run = cmd_snapshot_list,
     .examples = "bough snapshot list"},
    {.name = "get",
     .summary = "Show a snapshot",
     .words = "SNAPSHOT",
     .min_words = 1,
     .max_words = 1,
     .uses = PROJECT,
     .run = cmd_snapshot_get,
     .details = "Snapshots are named by name or id.",
     .examples = "bough snapshot get before-migration --json"},
    {.name = "rename",
     .summary = "Give a snapshot another name",
     .words = "SNAPSHOT NAME",
     .min_words = 2,
     .max_words = 2,
     .uses = PROJECT,
     .run = cmd_snapshot_rename,
     .examples = "bough snapshot rename before-migration v41"},
    {.name = "delete",
     .summary = "Delete a snapshot",
     .words = "SNAPSHOT",
     .min_words = 1,
     .max_words = 1,
     .uses = PROJECT,
     .run = cmd_snapshot_delete,
     .details = "Branches that were made from it stay. There is no way back.",
     .examples = "bough snapshot delete before-migration"},
    {.name = "restore",
     .summary = "Make a branch from a snapshot",
     .words = "SNAPSHOT",
     .min_words = 1,
     .max_words = 1,
     .uses = PROJECT,
     .options = snapshot_restore_options,
     .run = cmd_snapshot_restore,
     .details =
         "The new branch has the data, roles and passwords of the snapshot. Look at it, then "
         "`bough snapshot finalize` puts it in the place of the branch that the snapshot "
         "is of, or of --target; --finalize does that at once.",
     .examples = "bough snapshot restore before-migration --name look\n"
                 "bough snapshot restore before-migration --finalize"},
    {.name = "finalize",
     .summary = "Put a restored branch in the place of the one it replaces",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = snapshot_finalize_options,
     .run = cmd_snapshot_finalize,
     .details = "It has the name, the endpoint, the schedule and the passwords of that one, which "
                "is kept under another name with its children. Connections of both end.",
     .examples = "bough snapshot finalize look --old-name main-before"},
    {.name = "schedule",
     .summary = "Show or set when snapshots of a branch are taken",
     .words = "[BRANCH] [LINE]...",
     .max_words = CLI_WORDS_MAX,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = snapshot_schedule_options,
     .run = cmd_snapshot_schedule,
     .details = DEFAULT_BRANCH
     "A LINE is hourly, daily, weekly, monthly or yearly, with hour=0-23, day=1-7 (1 is "
     "Monday) or 1-31, month=1-12 and keep=DURATION behind it, separated by commas. Times are "
     "of UTC. Lines replace those that were set; a snapshot is kept until it is deleted where "
     "keep is missing. One that was missed while the server was down is taken once.",
     .examples = "bough snapshot schedule main\n"
                 "bough snapshot schedule main hourly,keep=1d daily,hour=3,keep=7d\n"
                 "bough snapshot schedule main --clear"},
    {0}};

static const cli_command server_commands[] = {
    {.name = "confirm-clock",
     .summary = "Say that the machine's clock is right",
     .uses = STORE,
     .run = cmd_server_confirm_clock,
     .details =
         "When the clock has jumped, `bough status` warns, and nothing expires or is removed "
         "that would not be due without the jump, until the clock has been synchronised for "
         "an hour. This ends that at once. Look at the clock first: what is due by it is "
         "deleted.",
     .examples = "date && bough server confirm-clock"},
    {0}};

static const cli_command store_commands[] = {
    {.name = "usage",
     .summary = "Show whose the bytes of the store are",
     .uses = STORE,
     .run = cmd_store_usage,
     .details =
         "OWN is what only the branch needs, HISTORY what only its past needs. With what branches "
         "share, what nothing needs and the rest it adds up to what du says of the store. All "
         "files are looked at, which takes a while in a large store.",
     .examples = "bough store usage\nbough store usage --json"},
    {.name = "gc",
     .summary = "Remove what nothing needs any more",
     .uses = STORE,
     .options = store_gc_options,
     .run = cmd_store_gc,
     .details =
         "The server does so by itself: this is for now, and for seeing why something stays. A "
         "layer goes when no branch, restore point or snapshot names it, restore points and WAL "
         "when they are older than the history of their project, and the trash in any case. "
         "Deleted branches that can be recovered keep what they need.",
     .examples = "bough store gc --dry-run\nbough store gc"},
    {0}};

static const cli_command endpoint_commands[] = {
    {.name = "list",
     .summary = "List endpoints and the state of their computes",
     .uses = PROJECT,
     .run = cmd_endpoint_list,
     .examples = "bough endpoint list"},
    {.name = "create",
     .summary = "Make an endpoint of a branch and start its compute",
     .words = "BRANCH",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = endpoint_create_options,
     .run = cmd_endpoint_create,
     .details =
         "A branch has at most one endpoint that writes, and up to 16 that only read. The compute "
         "of "
         "one that only reads is a hot standby of the branch's own: it sees what was committed "
         "there "
         "a moment ago, refuses every change, and wakes and sleeps by itself. While it is awake it "
         "keeps the branch's own compute neither awake nor asleep.",
     .examples = "bough endpoint create main --type read_only --size 2\n"
                 "bough psql main --endpoint-type read_only"},
    {.name = "delete",
     .summary = "Stop the compute of an endpoint and delete the endpoint",
     .words = "ENDPOINT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_delete,
     .details = OF_ENDPOINT "Its connections end, and nobody can connect by its host any more. The "
                            "branch and its data stay.",
     .examples = "bough endpoint delete ep-silent-smoke-806639"},
    {.name = "get",
     .summary = "Show an endpoint",
     .words = "ENDPOINT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_get,
     .details = OF_ENDPOINT,
     .examples = "bough endpoint get main --json"},
    {.name = "start",
     .summary = "Start a branch's compute",
     .words = "ENDPOINT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_start,
     .details = OF_ENDPOINT "Returns when it answers queries. One that runs already is success.",
     .examples = "bough endpoint start main"},
    {.name = "suspend",
     .summary = "Stop a branch's compute",
     .words = "ENDPOINT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_suspend,
     .details = OF_ENDPOINT "Its connections end. The next connection starts it again.",
     .examples = "bough endpoint suspend main"},
    {.name = "restart",
     .summary = "Stop a branch's compute and start it again",
     .words = "ENDPOINT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_restart,
     .details = OF_ENDPOINT "Its connections end.",
     .examples = "bough endpoint restart main"},
    {.name = "resize",
     .summary = "Say how large a branch's compute is",
     .words = "ENDPOINT UNITS",
     .min_words = 2,
     .max_words = 2,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_resize,
     .details = OF_ENDPOINT
     "UNITS is a number of compute units, or the least and the most as in 0.25-2: multiples of "
     "0.25 "
     "up to 16; the most counts. One unit is 128MB of shared_buffers, 4GB of effective_cache_size, "
     "work_mem of 4MB and 100 connections; less than one keeps work_mem and half of the "
     "connections. "
     "It takes effect at the next start.",
     .examples = "bough endpoint resize main 2 && bough endpoint restart main"},
    {.name = "why",
     .summary = "Tell why a compute is awake or asleep",
     .words = "ENDPOINT",
     .min_words = 1,
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_endpoint_why,
     .details = OF_ENDPOINT
     "Says what woke it, what keeps it awake and when it will be suspended, or why it sleeps. "
     "A compute is suspended when for its suspend_timeout_seconds (300 unless set) it had no "
     "session, query, open transaction, replication connection or autovacuum worker. A server "
     "that was restarted does not know what came before.",
     .examples = "bough endpoint why main"},
    {0}};

static const cli_option ip_allow_options[] = {
    {"protected-only", 0, NULL, "The list is for protected branches alone", 0, 0},
    {"all-branches", 0, NULL, "The list is for all branches", 0, 0},
    {0}};

#define RULES                                                                                      \
    "ADDRESS is an address (192.0.2.7), a network (192.0.2.0/24) or a range "                      \
    "(192.0.2.1-192.0.2.99), of IPv4 or IPv6. "

static const cli_command ip_allow_commands[] = {
    {.name = "list",
     .summary = "List the addresses that may connect",
     .uses = PROJECT,
     .run = cmd_ip_allow_list,
     .examples = "bough ip-allow list --project shop"},
    {.name = "add",
     .summary = "Add addresses that may connect",
     .words = "ADDRESS...",
     .min_words = 0,
     .max_words = CLI_WORDS_MAX,
     .uses = PROJECT,
     .options = ip_allow_options,
     .run = cmd_ip_allow_add,
     .details = RULES "From the first one on, all others are refused, this machine's own, too. "
                      "Connections that are open go on.",
     .examples = "bough ip-allow add 127.0.0.1 192.0.2.0/24 --protected-only"},
    {.name = "remove",
     .summary = "Remove addresses from those that may connect",
     .words = "ADDRESS...",
     .min_words = 1,
     .max_words = CLI_WORDS_MAX,
     .uses = PROJECT,
     .options = ip_allow_options,
     .run = cmd_ip_allow_remove,
     .details = "Each is written as the list has it. An empty list lets all addresses in.",
     .examples = "bough ip-allow remove 192.0.2.0/24"},
    {.name = "reset",
     .summary = "Replace the list; without addresses, everybody may connect",
     .words = "[ADDRESS...]",
     .max_words = CLI_WORDS_MAX,
     .uses = PROJECT,
     .options = ip_allow_options,
     .run = cmd_ip_allow_reset,
     .details = RULES,
     .examples = "bough ip-allow reset"},
    {0}};

static const cli_command key_commands[] = {
    {.name = "create",
     .summary = "Make an API key and print it",
     .words = "NAME",
     .min_words = 1,
     .max_words = 1,
     .uses = STORE,
     .options = key_create_options,
     .run = cmd_key_create,
     .details = "The key is shown this once; the server keeps its hash alone. Without options it "
                "may do everything. What it may not see is not there for it. A key ends with its "
                "project or branch.",
     .examples = "bough api-key create ci --for-project shop --expires-in 30d\n"
                 "bough api-key create dashboard --read-only"},
    {.name = "list",
     .summary = "List API keys",
     .uses = STORE,
     .run = cmd_key_list,
     .details = "One of them, \"default\", is in the file api_key of the store.",
     .examples = "bough api-key list --json"},
    {.name = "revoke",
     .summary = "End an API key",
     .words = "ID",
     .min_words = 1,
     .max_words = 1,
     .uses = STORE,
     .run = cmd_key_revoke,
     .details = "At once. The key in the store's file is exchanged by removing the file and "
                "starting the server again.",
     .examples = "bough api-key revoke 3"},
    {0}};

static const cli_command operation_commands[] = {
    {.name = "list",
     .summary = "List what the server did to a project",
     .uses = PROJECT,
     .options = operation_list_options,
     .run = cmd_operation_list,
     .examples = "bough operation list --limit 10"},
    {0}};

const cli_command cli_commands[] = {
    {.name = "up",
     .summary = "Start the server in the background",
     .uses = STORE,
     .options = up_options,
     .run = cmd_up,
     .details =
         "Creates the store if there is none. A server that runs already is success. Its log is "
         "boughd.log in the store. As root, the server and its databases run as user postgres.",
     .examples = "bough up\nbough up --store /srv/bough --port 7000\n"
                 "bough up --listen 0.0.0.0:5432 --domain db.example.com --tls-cert full.pem "
                 "--tls-key key.pem"},
    {.name = "down",
     .summary = "Stop the server",
     .uses = STORE,
     .options = down_options,
     .run = cmd_down,
     .details =
         "Returns when the process is gone. Computes are stopped cleanly first, unless "
         "--keep-computes is given: they then go on running, and the next server finds them.",
     .examples = "bough down\nbough down --keep-computes"},
    {.name = "status",
     .summary = "Show the server and its store",
     .uses = STORE,
     .run = cmd_status,
     .details =
         "Exits with 10 when no server runs. With --json: {\"running\", \"version\", \"store\", "
         "\"pid\", \"api_url\", \"api_key_file\", \"branches\", \"computes\", ...}.",
     .examples = "bough status --json"},
    {.name = "ca",
     .summary = "Print the certificate of the server's own CA",
     .uses = STORE,
     .run = cmd_ca,
     .details = "Clients that have it can check whom they are connected to: sslmode=verify-full "
                "sslrootcert=FILE.",
     .examples = "bough ca > bough-ca.crt"},
    {.name = "project",
     .summary = "Projects: a database with its branches",
     .children = project_commands},
    {.name = "branch",
     .summary = "Branches: writable copies of a database",
     .children = branch_commands},
    {.name = "endpoint",
     .summary = "Endpoints: the computes of branches",
     .children = endpoint_commands},
    {.name = "ip-allow",
     .summary = "Addresses that may connect to a project's endpoints",
     .children = ip_allow_commands},
    {.name = "snapshot",
     .summary = "Snapshots: moments that are kept",
     .children = snapshot_commands},
    {.name = "server", .summary = "Server: its clock", .children = server_commands},
    {.name = "store", .summary = "Store: its bytes", .children = store_commands},
    {.name = "psql",
     .summary = "Open psql on a branch",
     .words = "[BRANCH]",
     .max_words = 1,
     .takes_rest = true,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = connect_options,
     .run = cmd_psql,
     .details = DEFAULT_BRANCH LOOKS
     "It is removed when psql ends.\n\n"
     "A compute that sleeps is woken. Arguments after -- go to psql. The password "
     "reaches psql by its environment, never by its arguments. The exit status is psql's.",
     .examples = "bough psql\nbough psql main@'10 minutes ago'\nbough psql try-index -- -c 'SELECT "
                 "count(*) FROM orders'"},
    {.name = "cs",
     .summary = "Print a branch's connection string",
     .words = "[BRANCH]",
     .max_words = 1,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .options = cs_options,
     .run = cmd_cs,
     .details = DEFAULT_BRANCH LOOKS
     "It is removed when nobody has used it for 10 minutes.\n\n"
     "The connection string holds the role's password. Whoever connects with it wakes the branch's "
     "compute if it sleeps. Where names like ep-x.localhost do not resolve, it names the endpoint "
     "in its options, which works without TLS only.",
     .examples = "pg_dump \"$(bough cs try-index)\" > try.sql"},
    {.name = "export",
     .summary = "Write a branch as a plain PGDATA",
     .words = "BRANCH DIR",
     .min_words = 2,
     .max_words = 2,
     .word = CLI_WORD_BRANCH,
     .uses = PROJECT,
     .run = cmd_export,
     .details = "DIR must not exist, or be empty. A stock PostgreSQL of the same major version "
                "starts on it, without Bough. As root, DIR belongs to the owner of the store "
                "afterwards. Ctrl-C cancels and removes what was written.",
     .examples = "bough export main /tmp/shop && pg_ctl -D /tmp/shop start"},
    {.name = "api-key", .summary = "API keys: who may use the server", .children = key_commands},
    {.name = "operation",
     .summary = "Operations: what the server did",
     .children = operation_commands},
    {.name = "version", .summary = "Print the version", .run = cmd_version},
    {.name = "help",
     .summary = "Show help of a command",
     .words = "[COMMAND] [VERB]",
     .max_words = 2,
     .word = CLI_WORD_TOPIC,
     .options = help_options,
     .run = cmd_help,
     .examples = "bough help branch create\nbough help --man | man -l -"},
    {.name = "completion",
     .summary = "Print a completion script for a shell",
     .words = "bash|zsh|fish",
     .min_words = 1,
     .max_words = 1,
     .takes_rest = true,
     .run = cmd_completion,
     .details = "Completes commands, options, and the names of branches and projects. `bough "
                "completion words -- WORD...` prints the completions of the last WORD.",
     .examples = "bough completion bash > ~/.local/share/bash-completion/completions/bough\n"
                 "bough completion zsh > \"${fpath[1]}/_bough\"\n"
                 "bough completion fish > ~/.config/fish/completions/bough.fish"},
    {0}};
