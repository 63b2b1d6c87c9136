// Streams of the CUDA runtime on the host: each a queue and the thread that empties it.
#include "tests/cuda_on_host/streams.hpp"

#include <chrono>
#include <random>
#include <thread>

#include "tests/cuda_on_host/memory.hpp"

namespace cuda_on_host {
namespace {

// The program's streams, and the last points of destroyed ones whose work may still run. Never destroyed: streams'
// threads outlive static objects.
struct Registry {
  std::mutex mutex;
  std::set<cudaStream_t> streams;
  std::vector<PointPtr> orphans;
};
Registry& registry() {
  static auto& all = *std::make_unique<Registry>().release();
  return all;
}

thread_local cudaStream_t stream_of_this_thread = nullptr;
thread_local const CallSite* site_of_this_thread = nullptr;
thread_local bool in_host_function = false;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::unique_ptr<Operation> next_operation(CUstream_st& stream) {
  const Hidden hidden;
  std::unique_lock lock(stream.mutex);
  stream.changed.wait(lock, [&] { return stream.stopping || !stream.queue.empty(); });
  if (stream.queue.empty()) return nullptr;
  auto operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  return operation;
}

void run(CUstream_st& stream) {
  stream_of_this_thread = &stream;
  const long jitter = setting("JITTER_US", 0);
  std::minstd_rand random(
      static_cast<unsigned>(setting("SEED", 0) + (reinterpret_cast<std::uintptr_t>(&stream) >> 4)));
  while (auto operation = next_operation(stream)) {
    if (jitter > 0)
      std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<unsigned>(jitter)));
    acquire(operation.get());  // what the host did before its call
    site_of_this_thread = &operation->site;
    operation->site.enter();
    if (operation->kind == Kind::work) {
      const DeviceMemoryOpen open;
      operation->run();
    } else {
      operation->run();
    }
    operation->site.leave();
    site_of_this_thread = nullptr;
    release(&stream.idle_token);
    const Hidden hidden;
    const std::lock_guard lock(stream.mutex);
    if (operation->kind != Kind::marker) --stream.pending;
    operation.reset();
  }
}

// What a stream's work must wait for and be waited for by, when it is on the default stream: all blocking streams.
std::vector<cudaStream_t> blocking_streams(int device) {
  const std::lock_guard lock(registry().mutex);
  std::vector<cudaStream_t> blocking;
  for (cudaStream_t stream : registry().streams)
    if ((stream->flags & cudaStreamNonBlocking) == 0 && stream->device == device) blocking.push_back(stream);
  return blocking;
}

bool is_default(cudaStream_t stream) { return stream == nullptr || stream == cudaStreamLegacy; }

cudaError_t append(cudaStream_t handle, Work work, const CallSite& site) {
  const Hidden hidden;
  if (in_host_function) return cudaErrorNotPermitted;
  if (broken() != cudaSuccess) return broken();
  cudaStream_t stream = resolve(handle);
  // What comes after a failure does not run.
  work = [work = std::move(work)] {
    if (broken() == cudaSuccess) work();
  };
  if (stream->graph) {
    add_node(stream, std::move(work), site);
    return cudaSuccess;
  }
  const auto others = is_default(handle) ? blocking_streams(stream->device) : std::vector<cudaStream_t>{};
  for (cudaStream_t other : others) wait_for(stream, record(other));
  push(stream, std::move(work), site);
  for (cudaStream_t other : others) wait_for(other, record(stream));
  return cudaSuccess;
}

cudaError_t synchronize(cudaStream_t handle) {
  if (in_host_function) return cudaErrorNotPermitted;
  cudaStream_t stream = resolve(handle);
  if (capturing_forbids(stream)) return cudaErrorStreamCaptureUnsupported;
  PointPtr point = record(stream);
  point->wait();
  const Hidden hidden;
  point.reset();
  close_idle_device_memory();
  return broken();
}

}  // namespace

void Point::set() {
  release(this);
  const Hidden hidden;
  const std::lock_guard lock(mutex_);
  done_ = true;
  seconds_ = now();
  changed_.notify_all();
}

void Point::wait() {
  {
    const Hidden hidden;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
  }
  acquire(this);
}

bool Point::query() {
  {
    const Hidden hidden;
    const std::lock_guard lock(mutex_);
    if (!done_) return false;
  }
  acquire(this);
  return true;
}

cudaStream_t new_stream(unsigned flags, int priority) {
  const Hidden hidden;
  auto owned = std::make_unique<CUstream_st>();
  cudaStream_t stream = owned.get();
  stream->flags = flags;
  stream->priority = priority;
  stream->device = current_device();
  std::thread([owned = std::move(owned)] {
    run(*owned);
    const Hidden still_hidden;
    stream_of_this_thread = nullptr;
  }).detach();
  return stream;
}

void close(cudaStream_t stream) {
  const Hidden hidden;
  const std::lock_guard lock(stream->mutex);
  if (stream->helper != nullptr) close(stream->helper);
  stream->stopping = true;
  stream->changed.notify_all();
}

cudaStream_t resolve(cudaStream_t stream) {
  if (!is_default(stream)) return stream;
  const Hidden hidden;
  static std::mutex& mutex = *std::make_unique<std::mutex>().release();
  static auto& defaults = *std::make_unique<std::vector<cudaStream_t>>().release();
  const std::lock_guard lock(mutex);
  defaults.resize(static_cast<std::size_t>(device_count()));
  cudaStream_t& own = defaults[static_cast<std::size_t>(current_device())];
  if (own == nullptr) own = new_stream(0, 0);
  return own;
}

void push(cudaStream_t stream, Work work, const CallSite& site, Kind kind) {
  const Hidden hidden;
  auto operation = std::make_unique<Operation>(Operation{std::move(work), site, kind});
  release(operation.get());
  const std::lock_guard lock(stream->mutex);
  if (kind != Kind::marker) ++stream->pending;
  stream->queue.push_back(std::move(operation));
  stream->changed.notify_all();
}

PointPtr record(cudaStream_t stream) {
  const Hidden hidden;
  auto point = std::make_shared<Point>();
  push(
      stream, [point] { point->set(); }, {}, Kind::marker);
  return point;
}

void wait_for(cudaStream_t stream, PointPtr point) {
  const Hidden hidden;
  push(
      stream, [point = std::move(point)] { point->wait(); }, {}, Kind::wait);
}

void run_on_two_threads(const std::function<void(int)>& work) {
  cudaStream_t stream = stream_of_this_thread;
  PointPtr done;
  {
    const Hidden hidden;
    if (stream->helper == nullptr) stream->helper = new_stream(cudaStreamNonBlocking, 0);
    push(
        stream->helper, [&work] { work(1); }, *site_of_this_thread);
    done = record(stream->helper);
  }
  work(0);
  done->wait();
  const Hidden hidden;
  done.reset();
}

const CallSite* current_site() { return site_of_this_thread; }

__attribute__((noinline)) cudaError_t enqueue(cudaStream_t stream, Work work) {
  return fail(append(stream, std::move(work), CallSite::here()));
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

extern "C" {

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  if (const int error = injected_failure("cudaStreamCreateWithPriority", cudaErrorMemoryAllocation))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  *stream = new_stream(flags, priority);
  const std::lock_guard lock(registry().mutex);
  registry().streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

// What it still has to do is done.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Hidden hidden;
  {
    const std::lock_guard lock(registry().mutex);
    if (registry().streams.erase(stream) == 0) return fail(cudaErrorInvalidResourceHandle);
    registry().orphans.push_back(record(stream));
  }
  close(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const int error = injected_failure("cudaStreamSynchronize", cudaErrorLaunchFailure))
    return fail(static_cast<cudaError_t>(error));
  return fail(synchronize(stream));
}

// Of the current device, whose streams may end on other threads meanwhile; of destroyed streams, too.
cudaError_t cudaDeviceSynchronize() {
  std::vector<PointPtr> points;
  {
    const Hidden hidden;
    const std::lock_guard lock(registry().mutex);
    points.swap(registry().orphans);
    for (cudaStream_t stream : registry().streams)
      if (stream->device == current_device() && !stream->graph) points.push_back(record(stream));
  }
  for (const PointPtr& point : points) point->wait();
  const Hidden hidden;
  points.clear();
  return fail(synchronize(nullptr));
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  cudaStream_t stream = resolve(handle);
  {
    const Hidden hidden;
    const std::lock_guard lock(stream->mutex);
    if (stream->pending > 0) return fail(cudaErrorNotReady);
  }
  acquire(&stream->idle_token);
  return fail(broken());
}

// A host function may not touch device memory, nor call the runtime.
__attribute__((noinline)) cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function,
                                                         void* argument) {
  return enqueue(stream, [function, argument] {
    const DeviceMemoryClosed closed;
    in_host_function = true;
    function(argument);
    in_host_function = false;
  });
}

}  // extern "C"
