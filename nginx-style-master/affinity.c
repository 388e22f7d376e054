/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/master.h"
#include "nginx-style-master/process.h"

uint32_t affinity_cpu_count(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return (uint32_t)MAX(1, CPU_COUNT(&set));
}

uint32_t master_cpu_count(void)
{
    return MIN(affinity_cpu_count(), MASTER_WORKERS_MAX);
}

/* The n-th CPU that we may use, counted round: a container's CPUs need not start at 0. */
static int allowed_cpu(uint32_t n)
{
    cpu_set_t set;
    uint32_t count, seen = 0;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) == 0)
        return -1;
    count = (uint32_t)CPU_COUNT(&set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set) && seen++ == n % count)
            return cpu;
    return -1;
}

int affinity_pick(const struct master_config *config, uint32_t index)
{
    if (config->cpu_affinity_auto)
        return allowed_cpu(index);
    if (config->cpus_count == 0)
        return -1;
    return (int)config->cpus[index % config->cpus_count];
}

int affinity_set(int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return 0;
    if (cpu >= CPU_SETSIZE)
        return ERR_INVALID;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
}
