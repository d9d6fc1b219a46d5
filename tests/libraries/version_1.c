/* A simulator as described by version 1 of alchemist_ali.h: workers must not read the memory after it. */
#include "alchemist_ali.h"

typedef struct {
    const char *name;
    const char *doc;
    const alchemist_parameter *parameters;
    int (*create)(alchemist_call *call, void **simulation);
    int (*spaces)(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation);
    int (*reset)(alchemist_call *call, void *simulation, const int64_t *seed);
    int (*step)(alchemist_call *call, void *simulation, const double *action);
    int (*get_state)(alchemist_call *call, void *simulation, double *state);
    int (*get_score)(alchemist_call *call, void *simulation, double *score);
    int (*is_finished)(alchemist_call *call, void *simulation, int *finished);
    void (*destroy)(void *simulation);
} simulator_1;

typedef struct {
    int32_t abi_version;
    int32_t comm_bytes;
    const char *version;
    const char *doc;
    const alchemist_task *tasks;
    const simulator_1 *simulator;
} library_1;

static double state;

static int create(alchemist_call *call, void **simulation)
{
    (void)call;
    *simulation = &state;
    return ALCHEMIST_OK;
}

static int spaces(alchemist_call *call, void *simulation, alchemist_box *action, alchemist_box *observation)
{
    (void)call, (void)simulation;
    action->low = -1.0, action->high = 1.0;
    observation->low = -100.0, observation->high = 100.0;
    return ALCHEMIST_OK;
}

static int reset(alchemist_call *call, void *simulation, const int64_t *seed)
{
    (void)call, (void)simulation;
    state = seed != NULL ? (double)*seed : 0.0;
    return ALCHEMIST_OK;
}

static int step(alchemist_call *call, void *simulation, const double *action)
{
    (void)call, (void)simulation;
    state += *action;
    return ALCHEMIST_OK;
}

static int get(alchemist_call *call, void *simulation, double *value)
{
    (void)call, (void)simulation;
    *value = state;
    return ALCHEMIST_OK;
}

static int is_finished(alchemist_call *call, void *simulation, int *finished)
{
    (void)call, (void)simulation;
    *finished = state > 5.0;
    return ALCHEMIST_OK;
}

static struct {
    simulator_1 simulator;
    unsigned char after[256];
} simulator = {{"Old", "", NULL, create, spaces, reset, step, get, get, is_finished, NULL}, {0}};

static struct {
    library_1 library;
    unsigned char after[64];
} library = {{1, sizeof(MPI_Comm), "0.9", "", NULL, &simulator.simulator}, {0}};

const alchemist_library_description *alchemist_library(void)
{
    memset(simulator.after, 0xff, sizeof simulator.after);
    memset(library.after, 0xff, sizeof library.after);
    return (const alchemist_library_description *)(void *)&library;
}
