// The CPU stand-in for a CUDA device: what its two libraries share (it lives in libcuda.so.1).
//
// Device memory is memory of the host at addresses that the host cannot use. Work asked of a stream
// is not done when it is asked for, but later, in any order that streams and events allow, by a
// seed. Any call can be made to fail. It executes no PTX, and its arithmetic is the CPU's: what
// passes here says that the program asks for the right things in the right order, not that a GPU
// works.
//
//     QERA_STANDIN_SEED=N      the order of late work; 0: at once (default 1)
//     QERA_STANDIN_FAIL=N      from call N on every call fails, as on a device that was lost
//     QERA_STANDIN_FAIL=N:timeout the same, as on one that was stopped for taking too long
//     QERA_STANDIN_FAIL=N:once    only call N fails
//     QERA_STANDIN_FAIL=N:memory  the first allocation from call N on finds no room
//     QERA_STANDIN_FAIL=N:full    no allocation from call N on finds room
//     QERA_STANDIN_MEMORY=N    bytes of device memory (default 2 GiB)
//     QERA_STANDIN_DEVICES=WORD,...  the devices: good, busy (others have it), old (compute
//                              capability 7.0), small (64 MiB), tf32-rows, tf32-matrices
//                              (multiply f32 numbers as TF32 in cublasGemmEx, in cublasSgemm,
//                              whatever they are asked for) (default good)
//     QERA_STANDIN_LEAKS=FILE  what was not given back, how many calls there were, and the most
//                              bytes of device memory at one time, at the end
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

namespace standin
{

struct Stream;

enum Kind { Plain, Allocation, Waiting, Release };

// Held by every function for its whole length.
extern std::recursive_mutex one_at_a_time;

// Counts a call; 0, or the CUresult that it is to answer instead of doing anything. `Waiting` calls
// have done their waiting, `Release` ones go on to release whatever this says.
int begin(Kind kind);

// The host's address of `bytes` bytes of device memory; stops the process where they are not all of
// one allocation: a device would stop with an illegal address, or worse, not.
void *host(uint64_t address, size_t bytes, const char *who);

// Whether the device that is open is called by this word.
bool opened_is(const char *word);

// Work for later.
void ask(Stream *stream, std::function<void()> work);

// What is alive, by kind.
struct Alive {
    long allocations, pinned, streams, events, modules, contexts, handles;
};
extern Alive alive;

} // namespace standin
