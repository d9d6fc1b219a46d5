/* Wrong descriptions; the environment variable BROKEN selects the one that alchemist_library() returns. */
#include <stdlib.h>

#include "alchemist_ali.h"

static int run(alchemist_call *call)
{
    (void)call;
    return ALCHEMIST_OK;
}

#define TASK(name, parameters, results)                                                                              \
    static const alchemist_task name[] = {{"t", "", parameters, results, run}, ALCHEMIST_END};
#define PARAMETER(name, ...)                                                                                         \
    static const alchemist_parameter name##_parameters[] = {__VA_ARGS__, ALCHEMIST_END};                             \
    TASK(name, name##_parameters, NULL)
#define RESULT(name, ...)                                                                                            \
    static const alchemist_result name##_results[] = {__VA_ARGS__, ALCHEMIST_END};                                   \
    TASK(name, NULL, name##_results)

static const alchemist_task fine[] = {{"t", "", NULL, NULL, run}, ALCHEMIST_END};
static const alchemist_task no_tasks[] = {ALCHEMIST_END};
static const alchemist_task no_run[] = {{"t", "", NULL, NULL, NULL}, ALCHEMIST_END};
static const alchemist_task no_name[] = {{NULL, "", NULL, NULL, run}, ALCHEMIST_END};
static const alchemist_task twice[] = {{"t", "", NULL, NULL, run}, {"t", "", NULL, NULL, run}, ALCHEMIST_END};
static const alchemist_task keyword[] = {{"class", "", NULL, NULL, run}, ALCHEMIST_END};
static const alchemist_task not_utf8[] = {{"t", "\xff", NULL, NULL, run}, ALCHEMIST_END};
PARAMETER(no_kind, {"k", 0, NULL, "", 0, NULL})
PARAMETER(unknown_kind, {"k", 1 << 20, NULL, "", 0, NULL})
PARAMETER(nameless, {NULL, ALCHEMIST_INT, NULL, "", 0, NULL})
PARAMETER(two_alike, {"k", ALCHEMIST_INT, NULL, "", 0, NULL}, {"k", ALCHEMIST_INT, NULL, "", 0, NULL})
PARAMETER(taken, {"ctx", ALCHEMIST_INT, NULL, "", 0, NULL})
PARAMETER(no_value, {"k", ALCHEMIST_STRING, "fast", "", 0, NULL})
PARAMETER(other_kind, {"k", ALCHEMIST_INT, "1.5", "", 0, NULL})
PARAMETER(long_default, {"k", ALCHEMIST_INT, "9223372036854775808", "", 0, NULL})
PARAMETER(order, {"j", ALCHEMIST_INT, "1", "", 0, NULL}, {"k", ALCHEMIST_INT, NULL, "", 0, NULL})
PARAMETER(layout, {"A", ALCHEMIST_MATRIX, NULL, "", 0, "MC_XX"})
PARAMETER(layout_text, {"A", ALCHEMIST_MATRIX, NULL, "", 0, "MC_MR/64"})
PARAMETER(layout_block, {"A", ALCHEMIST_MATRIX, NULL, "", 0, "MC_MR:0"})
PARAMETER(layout_of_int, {"k", ALCHEMIST_INT, NULL, "", 0, "MC_MR"})
PARAMETER(type, {"A", ALCHEMIST_MATRIX, NULL, "", 1 << 20, NULL})
PARAMETER(type_of_int, {"k", ALCHEMIST_INT, NULL, "", ALCHEMIST_FLOAT64, NULL})
RESULT(result_kind, {"r", 0, ""})
RESULT(result_twice, {"r", ALCHEMIST_INT, ""}, {"r", ALCHEMIST_INT, ""})

static int create(alchemist_call *call, void **simulation)
{
    (void)call, (void)simulation;
    return ALCHEMIST_OK;
}
static const alchemist_simulator lacking = {"S", "", NULL, create, NULL, NULL, NULL, NULL, NULL, NULL, NULL};

static int reset(alchemist_call *call, void *simulation, const int64_t *seed)
{
    (void)call, (void)simulation, (void)seed;
    return ALCHEMIST_OK;
}
static int step(alchemist_call *call, void *simulation, const double *action)
{
    (void)call, (void)simulation, (void)action;
    return ALCHEMIST_OK;
}
static int get(alchemist_call *call, void *simulation, double *value)
{
    (void)call, (void)simulation, (void)value;
    return ALCHEMIST_OK;
}
static int spaces(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation)
{
    (void)call, (void)simulation, (void)action, (void)observation;
    return ALCHEMIST_OK;
}
static int snapshot(alchemist_call *call, void *simulation, void *part)
{
    (void)call, (void)simulation, (void)part;
    return ALCHEMIST_OK;
}
static const char *const alike[] = {"a", "b", "a", NULL};
#define REQUIRED "S", "", NULL, create, spaces, reset, step, get, get, NULL, NULL
static const alchemist_simulator half_info = {REQUIRED, alike, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
static const alchemist_simulator half_field = {REQUIRED, NULL, NULL, NULL, get, NULL, NULL, NULL, NULL, NULL};
static const alchemist_simulator half_snapshot = {REQUIRED, NULL, NULL, NULL, NULL, NULL, snapshot, NULL, NULL, NULL};
static const alchemist_simulator two_infos = {REQUIRED, alike, get, NULL, NULL, NULL, NULL, NULL, NULL, NULL};

static const struct {
    const char *name;
    alchemist_library_description description;
} cases[] = {
#define CASE(name) {#name, {ALCHEMIST_ABI_VERSION, sizeof(MPI_Comm), "", "", name, NULL}}
    CASE(no_tasks), CASE(no_run), CASE(no_name), CASE(twice), CASE(keyword), CASE(not_utf8), CASE(no_kind),
    CASE(unknown_kind), CASE(nameless), CASE(two_alike), CASE(taken), CASE(no_value), CASE(other_kind),
    CASE(long_default),
    CASE(order), CASE(layout), CASE(layout_text), CASE(layout_block), CASE(layout_of_int), CASE(type),
    CASE(type_of_int), CASE(result_kind), CASE(result_twice), CASE(fine),
    {"abi", {ALCHEMIST_ABI_VERSION + 1, sizeof(MPI_Comm), "", "", fine, NULL}},
    {"other_mpi", {ALCHEMIST_ABI_VERSION, sizeof(MPI_Comm) + 4, "", "", fine, NULL}},
    {"nothing", {ALCHEMIST_ABI_VERSION, sizeof(MPI_Comm), "", "", NULL, NULL}},
    {"short_simulator", {ALCHEMIST_ABI_VERSION, sizeof(MPI_Comm), "", "", NULL, &lacking, 8}},
#define SIMULATOR(name, which)                                                                                       \
    {#name, {ALCHEMIST_ABI_VERSION, sizeof(MPI_Comm), "", "", NULL, &which, sizeof which}}
    SIMULATOR(simulator, lacking), SIMULATOR(half_info, half_info), SIMULATOR(half_field, half_field),
    SIMULATOR(half_snapshot, half_snapshot), SIMULATOR(two_infos, two_infos),
};

const alchemist_library_description *alchemist_library(void)
{
    const char *wanted = getenv("BROKEN");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (wanted != NULL && strcmp(cases[i].name, wanted) == 0)
            return &cases[i].description;
    return NULL;
}
