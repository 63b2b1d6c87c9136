// Graphs of the CUDA runtime on the host: what streams captured, replayed lane by lane on streams of their own.
#include <algorithm>
#include <map>

#include "tests/cuda_on_host/streams.hpp"

struct CUgraphExec_st {
  std::shared_ptr<CUgraph_st> graph;
  std::vector<cudaStream_t> lanes;  // all but the first, which is the stream it is launched on
  cuda_on_host::PointPtr last;      // of the launch before
  ~CUgraphExec_st() {
    for (cudaStream_t lane : lanes) cuda_on_host::close(lane);
  }
};

namespace cuda_on_host {
namespace {

struct Graphs {
  std::mutex mutex;
  std::map<cudaGraph_t, std::shared_ptr<CUgraph_st>> captured;
  std::map<cudaGraphExec_t, std::unique_ptr<CUgraphExec_st>> executable;
};
Graphs& graphs() {
  static auto& all = *std::make_unique<Graphs>().release();
  return all;
}

thread_local std::weak_ptr<CUgraph_st> graph_of_this_thread;

bool is_joined(const CUgraph_st& graph) {
  std::set<const GraphNode*> reached;
  std::vector<const GraphNode*> open(graph.origin->latest.begin(), graph.origin->latest.end());
  while (!open.empty()) {
    const GraphNode* node = open.back();
    open.pop_back();
    if (reached.insert(node).second) open.insert(open.end(), node->after.begin(), node->after.end());
  }
  return std::all_of(graph.members.begin(), graph.members.end(), [&](cudaStream_t member) {
    return std::all_of(member->latest.begin(), member->latest.end(),
                       [&](const GraphNode* node) { return reached.count(node) > 0; });
  });
}

}  // namespace

bool capturing_forbids(cudaStream_t stream) {
  const Hidden hidden;
  const std::shared_ptr<CUgraph_st> graph = stream != nullptr ? stream->graph : graph_of_this_thread.lock();
  if (!graph || !graph->capturing) return false;
  graph->invalid = true;
  return true;
}

void add_node(cudaStream_t stream, Work work, const CallSite& site) {
  auto node =
      std::make_unique<GraphNode>(GraphNode{std::move(work), site, stream->latest, stream->lane, false});
  stream->latest = {node.get()};
  stream->graph->nodes.push_back(std::move(node));
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

extern "C" {

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (const int error = injected_failure("cudaStreamBeginCapture", cudaErrorStreamCaptureUnsupported))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  if (stream == nullptr || stream == cudaStreamLegacy) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream->graph) return fail(cudaErrorIllegalState);
  stream->graph = std::make_shared<CUgraph_st>();
  stream->graph->origin = stream;
  stream->graph->members = {stream};
  stream->lane = 0;
  stream->latest.clear();
  graph_of_this_thread = stream->graph;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const auto& graph = resolve(stream)->graph;
  *status = !graph           ? cudaStreamCaptureStatusNone
            : graph->invalid ? cudaStreamCaptureStatusInvalidated
                             : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  const Hidden hidden;
  *out = nullptr;
  const std::shared_ptr<CUgraph_st> graph = stream->graph;
  if (!graph || graph->origin != stream) return fail(cudaErrorStreamCaptureUnmatched);
  const bool joined = is_joined(*graph);
  graph->capturing = false;
  graph_of_this_thread.reset();
  for (cudaStream_t member : graph->members) {
    member->graph.reset();
    member->latest.clear();
  }
  if (graph->invalid) return fail(cudaErrorStreamCaptureInvalidated);
  if (!joined) return fail(cudaErrorStreamCaptureUnjoined);
  for (const auto& node : graph->nodes)
    for (GraphNode* before : node->after)
      if (before->lane != node->lane) before->signals = true;
  const std::lock_guard lock(graphs().mutex);
  *out = graph.get();
  graphs().captured[*out] = graph;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  if (const int error = injected_failure("cudaGraphInstantiate", cudaErrorMemoryAllocation))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  const std::lock_guard lock(graphs().mutex);
  const auto found = graphs().captured.find(graph);
  if (found == graphs().captured.end()) return fail(cudaErrorInvalidValue);
  auto executable = std::make_unique<CUgraphExec_st>();
  executable->graph = found->second;
  for (int lane = 1; lane < graph->lanes; ++lane)
    executable->lanes.push_back(new_stream(cudaStreamNonBlocking, 0));
  *out = executable.get();
  graphs().executable[*out] = std::move(executable);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(out, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Hidden hidden;
  const std::lock_guard lock(graphs().mutex);
  return fail(graphs().captured.erase(graph) == 1 ? cudaSuccess : cudaErrorInvalidValue);
}

// One that still runs ends its run.
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Hidden hidden;
  const std::lock_guard lock(graphs().mutex);
  return fail(graphs().executable.erase(executable) == 1 ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  if (const int error = injected_failure("cudaGraphLaunch", cudaErrorLaunchFailure))
    return fail(static_cast<cudaError_t>(error));
  const Hidden hidden;
  if (broken() != cudaSuccess) return fail(broken());
  cudaStream_t stream = resolve(handle);
  if (capturing_forbids(stream))
    return fail(cudaErrorStreamCaptureUnsupported);          // child graphs are not done here
  if (executable->last) wait_for(stream, executable->last);  // it never runs twice at once
  const PointPtr begin = record(stream);
  for (cudaStream_t lane : executable->lanes) wait_for(lane, begin);
  std::map<const GraphNode*, PointPtr> points;
  for (const auto& node : executable->graph->nodes) {
    cudaStream_t lane =
        node->lane == 0 ? stream : executable->lanes[static_cast<std::size_t>(node->lane) - 1];
    for (const GraphNode* before : node->after)
      if (before->lane != node->lane) wait_for(lane, points[before]);
    push(
        lane, [graph = executable->graph, run = node.get()] { run->run(); }, node->site);
    if (node->signals) points[node.get()] = record(lane);
  }
  for (cudaStream_t lane : executable->lanes) wait_for(stream, record(lane));
  executable->last = record(stream);
  return cudaSuccess;
}

}  // extern "C"
