// Events of the CUDA runtime on the host: points in streams, or in a graph that is being captured.
#include <map>

#include "tests/cuda_on_host/memory.hpp"
#include "tests/cuda_on_host/streams.hpp"

namespace cuda_on_host {
namespace {

// An event may be destroyed while a stream has yet to come to it; its point lives on.
struct Events {
  std::mutex mutex;
  std::map<cudaEvent_t, std::unique_ptr<CUevent_st>> all;
};
Events& events() {
  static auto& all = *std::make_unique<Events>().release();
  return all;
}

// CUDA_ON_HOST_DROP_WAIT=3 forgets the third cudaStreamWaitEvent: a test shows that each wait is needed.
bool is_dropped() {
  static std::mutex& mutex = *std::make_unique<std::mutex>().release();
  static long left = setting("DROP_WAIT", 0);
  const std::lock_guard lock(mutex);
  return left > 0 && --left == 0;
}

cudaError_t wait_in_capture(cudaStream_t stream, const CUevent_st& event) {
  const std::shared_ptr<CUgraph_st> graph = event.graph.lock();
  if (!graph || !graph->capturing) return cudaErrorCapturedEvent;
  if (!stream->graph) {  // the stream joins the capture
    stream->graph = graph;
    stream->lane = graph->lanes++;
    stream->latest.clear();
    graph->members.insert(stream);
  }
  if (stream->graph != graph) return cudaErrorStreamCaptureMerge;
  stream->latest.insert(stream->latest.end(), event.after.begin(), event.after.end());
  return cudaSuccess;
}

}  // namespace
}  // namespace cuda_on_host

using namespace cuda_on_host;

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (const int error = injected_failure("cudaEventCreateWithFlags", cudaErrorMemoryAllocation))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  auto created = std::make_unique<CUevent_st>();
  created->flags = flags;
  created->device = current_device();
  *event = created.get();
  const std::lock_guard lock(events().mutex);
  events().all[*event] = std::move(created);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Hidden hidden;
  const std::lock_guard lock(events().mutex);
  return fail(events().all.erase(event) == 1 ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned) {
  if (const int error = injected_failure("cudaEventRecord", cudaErrorInvalidResourceHandle))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  if (broken() != cudaSuccess) return fail(broken());
  cudaStream_t stream = resolve(handle);
  if (stream->device != event->device) return fail(cudaErrorInvalidResourceHandle);
  event->captured = stream->graph != nullptr;
  event->graph = stream->graph;
  event->after = stream->latest;
  if (!event->captured) event->point = record(stream);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  if (const int error = injected_failure("cudaStreamWaitEvent", cudaErrorInvalidResourceHandle))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  if (broken() != cudaSuccess) return fail(broken());
  if (is_dropped()) return cudaSuccess;
  cudaStream_t stream = resolve(handle);
  if (event->captured) return fail(wait_in_capture(stream, *event));
  if (stream->graph) {
    stream->graph->invalid = true;
    return fail(cudaErrorStreamCaptureIsolation);
  }
  if (event->point) wait_for(stream, event->point);  // one never recorded is no wait
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const int error = injected_failure("cudaEventSynchronize", cudaErrorLaunchFailure))
    return fail(static_cast<cudaError_t>(error));
  if (event->captured) return fail(cudaErrorCapturedEvent);
  PointPtr point;
  {
    const Hidden hidden;
    point = event->point;
  }
  if (point) point->wait();
  const Hidden hidden;
  point.reset();
  close_idle_device_memory();
  return fail(broken());
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->captured) return fail(cudaErrorCapturedEvent);
  if (event->point && !event->point->query()) return fail(cudaErrorNotReady);
  return fail(broken());
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const Hidden hidden;
  if (!begin->point || !end->point || ((begin->flags | end->flags) & cudaEventDisableTiming) != 0)
    return fail(cudaErrorInvalidResourceHandle);
  if (!begin->point->query() || !end->point->query()) return fail(cudaErrorNotReady);
  *milliseconds = static_cast<float>((end->point->seconds() - begin->point->seconds()) * 1e3);
  return cudaSuccess;
}

}  // extern "C"
