#include "core/cuda/stream.hpp"

#include <algorithm>
#include <mutex>
#include <nvtx3/nvToolsExt.h>
#include <utility>
#include <vector>

#include "core/cuda/check.hpp"

namespace muster {
namespace {

class CudaEvent {
 public:
  explicit CudaEvent(unsigned flags) {
    check_cuda(cudaEventCreateWithFlags(&event_, flags), "creating an event");
  }
  ~CudaEvent() { note_cuda(cudaEventDestroy(event_), "destroying an event"); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record(cudaStream_t stream) const {
    check_cuda(cudaEventRecord(event_, stream), "recording an event");
  }
  void synchronize() const { check_cuda(cudaEventSynchronize(event_), "waiting for a GPU"); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// A host that waits sleeps: its cores belong to the loader, and to other ranks.
constexpr unsigned untimed = cudaEventDisableTiming | cudaEventBlockingSync;
constexpr unsigned timed = cudaEventBlockingSync;

class CudaRecording final : public Recording {
 public:
  explicit CudaRecording(cudaGraph_t graph) {
    check_cuda(cudaGraphInstantiate(&executable_, graph, 0), "instantiating a graph");
  }
  // A replay that still runs goes on to its end.
  ~CudaRecording() override { note_cuda(cudaGraphExecDestroy(executable_), "destroying a graph"); }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;

  cudaGraphExec_t get() const { return executable_; }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const {
    note_cuda(cudaGraphDestroy(graph), "destroying a captured graph");
  }
};
using Graph = std::unique_ptr<CUgraph_st, DestroyGraph>;

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), "asking whether a stream captures");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

// What the host's part of a stream has failed with. The GPU hands on that one stream waits for another, not what that has
// failed with, so a stream keeps whom it has waited for: a step waits for the streams that wait for the host.
class CudaStream::Failure {
 public:
  void keep(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (!first_) first_ = std::move(failure);
  }
  void follow(const std::shared_ptr<Failure>& other) {
    if (other.get() == this) return;
    const std::lock_guard lock(mutex_);
    const auto known = [&](const std::weak_ptr<Failure>& f) { return f.lock() == other; };
    if (std::ranges::none_of(followed_, known)) followed_.push_back(other);
  }
  void rethrow() const {
    std::vector<std::weak_ptr<Failure>> followed;
    {
      const std::lock_guard lock(mutex_);
      if (first_) std::rethrow_exception(first_);
      followed = followed_;
    }
    // Not those that they follow: streams wait for each other in circles.
    for (const std::weak_ptr<Failure>& other : followed)
      if (const auto failure = other.lock())
        if (const std::exception_ptr theirs = failure->first()) std::rethrow_exception(theirs);
  }

 private:
  std::exception_ptr first() const {
    const std::lock_guard lock(mutex_);
    return first_;
  }

  mutable std::mutex mutex_;
  std::exception_ptr first_;
  std::vector<std::weak_ptr<Failure>> followed_;
};

class CudaStream::Point final : public Event::Point {
 public:
  Point(cudaStream_t stream, int device, std::shared_ptr<Failure> failure)
      : device_(device), failure_(std::move(failure)) {
    event_.record(stream);
  }

  // Threads that only ask have chosen no GPU, and would take memory on the first.
  bool complete() const override {
    check_cuda(cudaSetDevice(device_), "choosing a GPU");
    const cudaError_t result = cudaEventQuery(event_.get());
    if (result == cudaErrorNotReady) {
      // It is no failure, but the runtime keeps it as if it were one, and a launch would find it.
      static_cast<void>(cudaGetLastError());
      return false;
    }
    check_cuda(result, "asking for an event");
    return true;
  }
  void wait() const override {
    check_cuda(cudaSetDevice(device_), "choosing a GPU");
    event_.synchronize();
    failure_->rethrow();
  }
  cudaEvent_t event() const { return event_.get(); }
  const std::shared_ptr<Failure>& failure() const { return failure_; }

 private:
  CudaEvent event_{untimed};
  int device_;
  std::shared_ptr<Failure> failure_;
};

// Tells CUDA's times, which are differences of events, on the steady clock.
class CudaStream::Clock {
 public:
  explicit Clock(cudaStream_t stream) : base_(std::make_shared<CudaEvent>(timed)) {
    base_->record(stream);
    base_->synchronize();
    base_seconds_ = steady_seconds();
  }

  double seconds(const std::shared_ptr<CudaEvent>& event) {
    event->synchronize();
    const std::lock_guard lock(mutex_);
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, base_->get(), event->get()), "reading a time");
    const double passed = double{milliseconds} * 1e-3;
    const double now = base_seconds_ + passed;
    // Differences are f32: 24 bits of a day would be milliseconds. A near base keeps them at microseconds.
    if (passed > 10) {
      base_ = event;
      base_seconds_ = now;
    }
    return now;
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<CudaEvent> base_;
  double base_seconds_ = 0;
};

CudaStream::CudaStream(int priority) : failure_(std::make_shared<Failure>()) {
  check_cuda(cudaGetDevice(&device_), "asking for the current GPU");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority), "creating a stream");
  clock_ = std::make_shared<Clock>(stream_);
}

CudaStream::~CudaStream() {
  note_cuda(cudaStreamSynchronize(stream_), "waiting for a stream that is destroyed");
  note_cuda(cudaStreamDestroy(stream_), "destroying a stream");
}

void CudaStream::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "copying");
}

void CudaStream::wait(const Event& event) {
  const auto& point = event.point();
  if (!point) return;
  if (const auto* on_device = dynamic_cast<const Point*>(&point->on_stream())) {
    check_cuda(cudaStreamWaitEvent(stream_, on_device->event(), 0), "waiting for an event");
    failure_->follow(on_device->failure());
    return;
  }
  check(!is_capturing(stream_), "a recording of a GPU cannot wait for the host");
  struct HostWait {
    std::shared_ptr<const Event::Point> point;
    std::shared_ptr<Failure> failure;
  };
  auto wait = std::make_unique<HostWait>(HostWait{point, failure_});
  const auto run = [](void* argument) {
    const std::unique_ptr<HostWait> waiting(static_cast<HostWait*>(argument));
    try {
      waiting->point->wait();
    } catch (...) {
      waiting->failure->keep(std::current_exception());
    }
  };
  check_cuda(cudaLaunchHostFunc(stream_, run, wait.get()), "waiting for the host");
  static_cast<void>(wait.release());  // the function's now
}

Event CudaStream::record() { return Event(std::make_shared<Point>(stream_, device_, failure_)); }

std::function<double()> CudaStream::timestamp() {
  auto event = std::make_shared<CudaEvent>(timed);
  event->record(stream_);
  return [clock = clock_, event = std::move(event)] { return clock->seconds(event); };
}

std::shared_ptr<void> CudaStream::name_work(const std::function<std::string()>& name) {
  // NVTX looks for a profiler in its first call; several threads may make theirs at once.
  static const bool ready = [] {
    nvtxInitialize(nullptr);
    return true;
  }();
  if (!ready) return nullptr;
  nvtxRangePushA(name().c_str());
  return {this, [](void*) { nvtxRangePop(); }};
}

std::shared_ptr<Recording> CudaStream::capture(const std::function<void()>& append) {
  // Other threads may meanwhile allocate and wait.
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a capture");
  cudaGraph_t captured = nullptr;
  try {
    append();
  } catch (...) {
    // What spoiled the capture is told by the exception.
    static_cast<void>(cudaStreamEndCapture(stream_, &captured));
    static_cast<void>(cudaGetLastError());
    const Graph graph(captured);
    throw;
  }
  const cudaError_t result = cudaStreamEndCapture(stream_, &captured);
  const Graph graph(captured);
  check_cuda(result, "ending a capture");
  return std::make_shared<CudaRecording>(graph.get());
}

void CudaStream::replay(const Recording& recording) {
  const auto* mine = dynamic_cast<const CudaRecording*>(&recording);
  check(mine != nullptr, "only what a GPU's stream has captured can be replayed on one");
  check_cuda(cudaGraphLaunch(mine->get(), stream_), "replaying a graph");
}

}  // namespace muster
