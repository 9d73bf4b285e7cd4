#include "kernels.h"
#include "machine.h"
#include <cstdint>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <utility>

thread_local Place threadIdx, blockIdx, blockDim, gridDim;

#include "fold.cu"
#include "trace.cu"
#include "weigh.cu"
#include "widen.cu"

namespace
{

// An argument as the kernel reads it: pointers are the device's.
template <class T> T argument(const void *place)
{
    T value;
    memcpy(&value, place, sizeof value);
    if constexpr (std::is_pointer_v<T>) {
        return static_cast<T>(
            standin::host(reinterpret_cast<uint64_t>(value), 1, "a kernel's argument"));
    }
    return value;
}

template <auto kernel> struct Of;
template <class... T, void (*kernel)(T...)> struct Of<kernel> {
    static constexpr size_t parameters = sizeof...(T);

    template <size_t... at>
    static std::function<void()> bound(void **places, std::index_sequence<at...>)
    {
        std::tuple<T...> arguments{argument<T>(places[at])...};
        return [arguments] { std::apply(kernel, arguments); };
    }
    static std::function<void()> bind(void **places)
    {
        return bound(places, std::index_sequence_for<T...>{});
    }
};

#define KERNEL(name) {#name, Of<name>::parameters, Of<name>::bind}

const HostKernel kernels[] = {
    KERNEL(fold_panel),    KERNEL(widen),       KERNEL(unpack_columns),
    KERNEL(unpack_scaled), KERNEL(weigh_bf16),  KERNEL(weigh_f16),
    KERNEL(weigh_f32),     KERNEL(trace_panel), KERNEL(trace_rows),
};

} // namespace

const HostKernel *kernel_of(const char *name)
{
    for (const HostKernel &kernel : kernels) {
        if (strcmp(kernel.name, name) == 0) {
            return &kernel;
        }
    }
    return nullptr;
}

void for_each_thread(Place grid, Place block, uint64_t start, uint64_t stride,
                     const std::function<void()> &thread)
{
    const uint64_t count = uint64_t(grid.x) * grid.y * block.x;
    stride = stride % count + 1;
    while (std::gcd(stride, count) != 1) {
        stride += 1;
    }
    gridDim = grid;
    blockDim = block;
    uint64_t at = start % count;
    for (uint64_t done = 0; done < count; done += 1) {
        threadIdx = {unsigned(at % block.x), 0, 0};
        blockIdx = {unsigned(at / block.x % grid.x), unsigned(at / block.x / grid.x), 0};
        thread();
        at = (at + stride) % count;
    }
}
