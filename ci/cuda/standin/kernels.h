// The kernels, compiled for the host from the sources that the PTX is made of.
#pragma once
#include "shim.h"
#include <cstddef>
#include <cstdint>
#include <functional>

struct HostKernel {
    const char *name;
    size_t parameters;
    // Copies the arguments, as a launch does; what comes back is one thread of it.
    std::function<void()> (*bind)(void **arguments);
};

// null: none of this name.
const HostKernel *kernel_of(const char *name);

// Every thread once, in an order of the caller's choice.
void for_each_thread(Place grid, Place block, uint64_t start, uint64_t stride,
                     const std::function<void()> &thread);
