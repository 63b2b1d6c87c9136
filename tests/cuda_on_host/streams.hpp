// Inside the stand-in of the CUDA runtime: a stream is a queue with a thread of its own, an event a point in it, a
// graph a list of recorded work.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "tests/cuda_on_host/host_cuda.hpp"

namespace cuda_on_host {

using Work = std::function<void()>;

// The lines that enqueued a piece of work: ThreadSanitizer shows them below the kernel's own in its reports.
class CallSite {
 public:
  static CallSite here();  // of the caller's caller
  void enter() const;
  void leave() const;

 private:
  // Where the compiler inlines nothing, std::function's frames alone are half of these.
  std::array<void*, 16> frames_{};
  int count_ = 0;
};

// One execution of an event record.
class Point {
 public:
  void set();
  void wait();
  bool query();
  double seconds() const { return seconds_; }  // once it is set

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  double seconds_ = 0;
};
using PointPtr = std::shared_ptr<Point>;

struct GraphNode {
  Work run;
  CallSite site;
  std::vector<GraphNode*> after;
  int lane = 0;          // the captured stream that it came from
  bool signals = false;  // a node of another lane waits for it
};

enum class Kind {
  work,    // may touch device memory
  wait,    // for another stream
  marker,  // is nothing to cudaStreamQuery
};

struct Operation {
  Work run;
  CallSite site;
  Kind kind = Kind::work;
};

// The stream of the null handle, of the current device.
cudaStream_t resolve(cudaStream_t stream);
cudaStream_t new_stream(unsigned flags, int priority);
// Its thread ends when the queue is empty.
void close(cudaStream_t stream);
void push(cudaStream_t stream, Work work, const CallSite& site, Kind kind = Kind::work);
PointPtr record(cudaStream_t stream);
void wait_for(cudaStream_t stream, PointPtr point);

// A second thread beside the one that calls this on a stream: blocks of one grid on two threads, so that they are seen
// to be unordered. Returns when both are done.
void run_on_two_threads(const std::function<void(int which)>& work);
// Of the work that this thread runs now.
const CallSite* current_site();

// Whether a call that waits, or takes memory, is forbidden because `stream` (or this thread, if it is null) captures;
// it spoils the capture then.
bool capturing_forbids(cudaStream_t stream);
// Appends to the graph that the stream captures into.
void add_node(cudaStream_t stream, Work work, const CallSite& site);

int current_device();
int device_count();
// A kernel that failed has broken its process' device for good: what every call returns then.
cudaError_t broken();
void break_device(cudaError_t error);

}  // namespace cuda_on_host

struct CUgraph_st {
  std::vector<std::unique_ptr<cuda_on_host::GraphNode>>
      nodes;  // in the order of capture, which is topological
  int lanes = 1;
  bool capturing = true;
  bool invalid = false;
  cudaStream_t origin = nullptr;
  std::set<cudaStream_t> members;
};

struct CUstream_st {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::unique_ptr<cuda_on_host::Operation>> queue;
  bool stopping = false;
  int pending = 0;
  unsigned flags = 0;
  int priority = 0;
  int device = 0;
  std::shared_ptr<CUgraph_st> graph;             // that it captures into
  int lane = 0;                                  // in that graph
  std::vector<cuda_on_host::GraphNode*> latest;  // what its next node comes after
  cudaStream_t helper = nullptr;
  char idle_token = 0;
};

struct CUevent_st {
  unsigned flags = 0;
  int device = 0;
  cuda_on_host::PointPtr point;                 // null: never recorded
  std::weak_ptr<CUgraph_st> graph;              // captured: in which graph, and
  std::vector<cuda_on_host::GraphNode*> after;  // after which nodes
  bool captured = false;
};
