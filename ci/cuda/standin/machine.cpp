// The stand-in's driver: memory, streams, events, modules, launches.
#include "machine.h"
#include "kernels.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace standin
{

std::recursive_mutex one_at_a_time;
Alive alive{};

namespace
{

constexpr int OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, INVALID_VALUE = 1,
              LOST = 719, ONCE = 701, TIMED_OUT = 702, BUSY = 46;
constexpr uint64_t NOT_FOR_THE_HOST = 1ULL << 62;

uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

std::vector<std::string> words(const char *text)
{
    std::vector<std::string> found;
    std::stringstream rest(text && *text ? text : "good");
    for (std::string word; std::getline(rest, word, ',');) {
        found.push_back(word);
    }
    return found;
}

struct Settings {
    std::vector<std::string> devices = words(getenv("QERA_STANDIN_DEVICES"));
    uint64_t seed = setting("QERA_STANDIN_SEED", 1);
    uint64_t memory = setting("QERA_STANDIN_MEMORY", 2ULL << 30);
    uint64_t fail_at = setting("QERA_STANDIN_FAIL", 0);
    std::string fail_kind;
    Settings()
    {
        const char *text = getenv("QERA_STANDIN_FAIL");
        const char *colon = text ? strchr(text, ':') : nullptr;
        fail_kind = colon ? colon + 1 : "lost";
    }
};

const Settings &settings()
{
    static const Settings read;
    return read;
}

int open_device = 0;

bool is(int device, const char *word)
{
    return settings().devices.at(device) == word;
}

uint64_t memory_of(int device)
{
    return is(device, "small") ? 64ULL << 20 : settings().memory;
}

uint64_t calls = 0;
bool lost = false, failed_once = false;

std::mt19937_64 &chance()
{
    static std::mt19937_64 generator(settings().seed);
    return generator;
}

[[noreturn]] void stop(const std::string &why)
{
    fprintf(stderr, "CPU stand-in: %s\n", why.c_str());
    abort();
}

struct Allocation_ {
    size_t bytes;
    char *mapped;
    size_t length;
};
std::map<uint64_t, Allocation_> allocations; // by the host's address
uint64_t in_use = 0, most_in_use = 0;
std::map<void *, size_t> pinned;
thread_local bool current = false;

struct Task {
    std::function<void()> run;
    uint64_t after = 0, ticket = 0;
};
uint64_t tickets = 0;
std::set<uint64_t> open_tickets;

} // namespace

struct Stream {
    std::deque<Task> tasks;
};
struct Event {
    uint64_t ticket = 0;
};
struct Module {
    std::string text;
};

namespace
{

std::set<Stream *> streams;

bool ready(const Stream *stream)
{
    return !stream->tasks.empty() && !open_tickets.count(stream->tasks.front().after);
}

// One task of one of the streams that can go on.
bool step()
{
    std::vector<Stream *> able;
    std::copy_if(streams.begin(), streams.end(), std::back_inserter(able), ready);
    if (able.empty()) {
        return false;
    }
    Stream *stream = able[chance()() % able.size()];
    Task task = std::move(stream->tasks.front());
    stream->tasks.pop_front();
    if (task.run) {
        task.run();
    }
    open_tickets.erase(task.ticket);
    return true;
}

template <class Done> void work_until(Done done)
{
    while (!done()) {
        if (!step()) {
            stop("streams wait for each other");
        }
    }
}

void ask_task(Stream *stream, Task task)
{
    stream->tasks.push_back(std::move(task));
    if (settings().seed == 0) {
        work_until([] {
            return std::all_of(streams.begin(), streams.end(),
                               [](Stream *s) { return s->tasks.empty(); });
        });
        return;
    }
    for (uint64_t some = chance()() % 4; some > 1; some -= 1) {
        step();
    }
}

void forget_work()
{
    for (Stream *stream : streams) {
        stream->tasks.clear();
    }
    open_tickets.clear();
}

void report()
{
    const char *file = getenv("QERA_STANDIN_LEAKS");
    FILE *out = file ? fopen(file, "w") : nullptr;
    if (!out) {
        return;
    }
    fprintf(out,
            "calls=%llu\nallocations=%ld\npinned=%ld\nstreams=%ld\nevents=%ld\nmodules=%"
            "ld\ncontexts=%ld\nhandles=%ld\nmost=%llu\n",
            (unsigned long long)calls, alive.allocations, alive.pinned, alive.streams, alive.events,
            alive.modules, alive.contexts, alive.handles, (unsigned long long)most_in_use);
    fclose(out);
}

struct AtTheEnd {
    ~AtTheEnd() { report(); }
} at_the_end;

} // namespace

int begin(Kind kind)
{
    calls += 1;
    const Settings &set = settings();
    const bool due = set.fail_at != 0 && calls >= set.fail_at;
    const bool timed_out = set.fail_kind == "timeout";
    if (due && (set.fail_kind == "lost" || timed_out) && !lost) {
        lost = true;
        forget_work();
    }
    if (lost) {
        return timed_out ? TIMED_OUT : LOST;
    }
    if (!current && kind != Release) {
        return INVALID_CONTEXT;
    }
    if (due && set.fail_kind == "full" && kind == Allocation) {
        return OUT_OF_MEMORY;
    }
    if (due && !failed_once && set.fail_kind == "memory" && kind == Allocation) {
        failed_once = true;
        return OUT_OF_MEMORY;
    }
    if (due && !failed_once && set.fail_kind == "once") {
        failed_once = true;
        return ONCE;
    }
    return 0;
}

bool opened_is(const char *word)
{
    return is(open_device, word);
}

void *host(uint64_t address, size_t bytes, const char *who)
{
    if (bytes == 0) {
        return nullptr;
    }
    const uint64_t at = address ^ NOT_FOR_THE_HOST;
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin() || !(address & NOT_FOR_THE_HOST)) {
        stop(std::string(who) + ": not an address of the device");
    }
    --next;
    if (at + bytes > next->first + next->second.bytes) {
        stop(std::string(who) + ": beyond an allocation");
    }
    return reinterpret_cast<void *>(at);
}

void ask(Stream *stream, std::function<void()> work)
{
    Task task;
    task.run = std::move(work);
    ask_task(stream, std::move(task));
}

} // namespace standin

using namespace standin;
using Lock = std::lock_guard<std::recursive_mutex>;

#define BEGIN(kind)                     \
    Lock lock(one_at_a_time);           \
    if (const int code = begin(kind)) { \
        return code;                    \
    }

extern "C" {

int cuInit(unsigned)
{
    return 0;
}
int cuDriverGetVersion(int *version)
{
    *version = 12080;
    return 0;
}
int cuGetErrorName(int code, const char **name)
{
    *name = code == LOST        ? "CUDA_ERROR_LAUNCH_FAILED"
            : code == ONCE      ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
            : code == TIMED_OUT ? "CUDA_ERROR_LAUNCH_TIMEOUT"
            : code == BUSY      ? "CUDA_ERROR_DEVICE_UNAVAILABLE"
                                : "CUDA_ERROR_OTHER";
    return 0;
}
int cuDeviceGetCount(int *count)
{
    *count = settings().devices.size();
    return 0;
}
int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return 0;
}
int cuDeviceGetName(char *name, int length, int)
{
    snprintf(name, length, "CPU stand-in");
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    *bytes = memory_of(device);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute != 75 ? 0 : is(device, "old") ? 7 : 9;
    return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
    Lock lock(one_at_a_time);
    current = true; // so that `begin` counts it like any other
    const int code = begin(Allocation);
    current = false;
    if (code || is(device, "busy")) {
        return code ? code : BUSY;
    }
    open_device = device;
    alive.contexts += 1;
    *context = &alive;
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int)
{
    Lock lock(one_at_a_time);
    alive.contexts -= 1;
    return begin(Release);
}
int cuCtxSetCurrent(void *context)
{
    current = context == &alive;
    return current ? 0 : INVALID_CONTEXT;
}
int cuCtxSynchronize()
{
    Lock lock(one_at_a_time);
    work_until([] {
        return std::all_of(streams.begin(), streams.end(),
                           [](Stream *s) { return s->tasks.empty(); });
    });
    return begin(Waiting);
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    BEGIN(Plain)
    *total = memory_of(open_device);
    *free_bytes = *total - in_use;
    return 0;
}
// Ends at a page that nobody may touch, and begins behind one; holds NaN. Shared memory, so that
// the system does not count it with what the program itself takes.
int cuMemAlloc_v2(uint64_t *address, size_t bytes)
{
    BEGIN(Allocation)
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    if (in_use + bytes > memory_of(open_device)) {
        return OUT_OF_MEMORY;
    }
    const size_t page = sysconf(_SC_PAGESIZE), room = (bytes + 15) / 16 * 16,
                 inner = (room + page - 1) / page * page;
    char *mapped =
        (char *)mmap(nullptr, inner + 2 * page, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped + page, inner, PROT_READ | PROT_WRITE)) {
        return OUT_OF_MEMORY;
    }
    char *start = mapped + page + inner - room;
    memset(start, 0xff, room);
    allocations[(uint64_t)start] = {bytes, mapped, inner + 2 * page};
    in_use += bytes;
    most_in_use = std::max(most_in_use, in_use);
    alive.allocations += 1;
    *address = (uint64_t)start ^ NOT_FOR_THE_HOST;
    return 0;
}
int cuMemFree_v2(uint64_t address)
{
    Lock lock(one_at_a_time);
    const auto found = allocations.find(address ^ NOT_FOR_THE_HOST);
    if (found == allocations.end()) {
        stop("freed what was not allocated");
    }
    in_use -= found->second.bytes;
    munmap(found->second.mapped, found->second.length);
    allocations.erase(found);
    alive.allocations -= 1;
    return begin(Release);
}
int cuMemHostAlloc(void **start, size_t bytes, unsigned)
{
    BEGIN(Allocation)
    *start = malloc(bytes);
    pinned[*start] = bytes;
    alive.pinned += 1;
    return 0;
}
int cuMemFreeHost(void *start)
{
    Lock lock(one_at_a_time);
    if (pinned.erase(start) == 0) {
        stop("freed page-locked memory that was not allocated");
    }
    free(start);
    alive.pinned -= 1;
    return begin(Release);
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream)
{
    BEGIN(Plain)
    void *there = host(to, bytes, "a copy to the device");
    ask(stream, [=] { memcpy(there, from, bytes); });
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream)
{
    BEGIN(Plain)
    const void *there = host(from, bytes, "a copy from the device");
    ask(stream, [=] { memcpy(to, there, bytes); });
    return 0;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream *stream)
{
    BEGIN(Plain)
    void *there = host(to, bytes, "a memset");
    ask(stream, [=] { memset(there, value, bytes); });
    return 0;
}

int cuStreamCreate(Stream **stream, unsigned)
{
    BEGIN(Allocation)
    *stream = new Stream;
    streams.insert(*stream);
    alive.streams += 1;
    return 0;
}
int cuStreamDestroy_v2(Stream *stream)
{
    Lock lock(one_at_a_time);
    if (streams.erase(stream) == 0 || !stream->tasks.empty()) {
        stop("destroyed a stream that is at work, or none");
    }
    delete stream;
    alive.streams -= 1;
    return begin(Release);
}
int cuStreamSynchronize(Stream *stream)
{
    Lock lock(one_at_a_time);
    work_until([&] { return stream->tasks.empty(); });
    return begin(Waiting);
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned)
{
    BEGIN(Plain)
    Task task;
    task.after = event->ticket;
    ask_task(stream, std::move(task));
    return 0;
}

int cuEventCreate(Event **event, unsigned)
{
    BEGIN(Allocation)
    *event = new Event;
    alive.events += 1;
    return 0;
}
int cuEventRecord(Event *event, Stream *stream)
{
    BEGIN(Plain)
    event->ticket = ++tickets;
    open_tickets.insert(event->ticket);
    Task task;
    task.ticket = event->ticket;
    ask_task(stream, std::move(task));
    return 0;
}
int cuEventSynchronize(Event *event)
{
    Lock lock(one_at_a_time);
    work_until([&] { return open_tickets.count(event->ticket) == 0; });
    return begin(Waiting);
}
int cuEventDestroy_v2(Event *event)
{
    Lock lock(one_at_a_time);
    delete event;
    alive.events -= 1;
    return begin(Release);
}

int cuModuleLoadData(Module **module, const char *image)
{
    BEGIN(Allocation)
    if (!strstr(image, "\n.version ")) {
        return INVALID_VALUE;
    }
    *module = new Module{image};
    alive.modules += 1;
    return 0;
}
int cuModuleUnload(Module *module)
{
    Lock lock(one_at_a_time);
    delete module;
    alive.modules -= 1;
    return begin(Release);
}
// A kernel that the PTX declares, with as many parameters as its source compiled for the host.
int cuModuleGetFunction(const HostKernel **function, Module *module, const char *name)
{
    BEGIN(Plain)
    const std::string entry = ".visible .entry " + std::string(name) + "(";
    const size_t at = module->text.find(entry);
    const HostKernel *kernel = kernel_of(name);
    if (at == std::string::npos || !kernel) {
        return NOT_FOUND;
    }
    const std::string declared =
        module->text.substr(at, module->text.find(')', at + entry.size()) - at);
    size_t parameters = 0;
    for (size_t from = declared.find(".param"); from != std::string::npos;
         from = declared.find(".param", from + 1)) {
        parameters += 1;
    }
    if (parameters != kernel->parameters) {
        stop(std::string(name) + ": PTX and source differ in their parameters");
    }
    *function = kernel;
    return 0;
}
int cuLaunchKernel(const HostKernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned, Stream *stream, void **arguments, void **)
{
    BEGIN(Plain)
    if (gx == 0 || gy == 0 || gy > 65535 || gz != 1 || bx == 0 || bx > 1024 || by != 1 || bz != 1) {
        return INVALID_VALUE;
    }
    const std::function<void()> thread = kernel->bind(arguments);
    const uint64_t start = chance()(), stride = chance()();
    ask(stream, [=] { for_each_thread({gx, gy, 1}, {bx, 1, 1}, start, stride, thread); });
    return 0;
}

} // extern "C"
