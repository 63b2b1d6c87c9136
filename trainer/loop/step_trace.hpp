// A trace of one training step: every kernel, and every collective beside it.
#pragma once

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "model/executor.hpp"
#include "trainer/metrics/trace_file.hpp"

namespace muster {

// A communicator that notes when its collectives began and ended, as a thread of its own sees their events: to
// about 50 us.
class TracedCommunicator final : public Communicator {
 public:
  explicit TracedCommunicator(Communicator& comm);
  ~TracedCommunicator() override;

  // From now on; take() ends it, waits for the collectives that were issued, and returns them.
  void begin();
  std::vector<TraceRecord> take();

  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  int local_rank() const override { return comm_.local_rank(); }
  int local_size() const override { return comm_.local_size(); }
  bool sums() const override { return comm_.sums(); }
  Event all_to_all(std::span<const std::span<const std::byte>> send,
                   std::span<const std::span<std::byte>> receive, const std::string& what,
                   const Event& after) override {
    return noted(what, after, comm_.all_to_all(send, receive, what, after));
  }
  Event all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                   const Event& after) override {
    return noted(what, after, comm_.all_gather(pieces, what, after));
  }
  std::vector<Event> all_gathers(std::span<const std::vector<std::span<std::byte>>> rounds,
                                 const std::string& what, const Event& after) override {
    std::vector<Event> done = comm_.all_gathers(rounds, what, after);
    for (Event& each : done) each = noted(what, after, each);
    return done;
  }
  Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                   const Event& after) override {
    return noted(what, after, comm_.all_reduce(data, type, op, what, after));
  }
  Event reduce_scatter(std::span<const std::span<float>> pieces, const std::string& what,
                       const Event& after) override {
    return noted(what, after, comm_.reduce_scatter(pieces, what, after));
  }
  Event broadcast(std::span<std::byte> data, int root, const std::string& what, const Event& after) override {
    return noted(what, after, comm_.broadcast(data, root, what, after));
  }
  Event barrier(const std::string& what) override { return comm_.barrier(what); }
  std::unique_ptr<Communicator> split(int color, int key) override { return comm_.split(color, key); }
  std::uint64_t bytes_sent() const override { return comm_.bytes_sent(); }
  std::optional<PendingCollective> oldest_pending() const override { return comm_.oldest_pending(); }
  [[noreturn]] void abort(int exit_code) override {
    comm_.abort(exit_code);
    std::abort();  // never reached: gcc does not believe a virtual function that it will not return
  }

 private:
  struct Note {
    std::string what;
    Event after, done;
    double begin = 0;
  };
  Event noted(const std::string& what, const Event& after, Event done);
  void watch();

  Communicator& comm_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool noting_ = false, stopping_ = false;
  std::deque<Note> pending_;
  std::vector<TraceRecord> records_;
  std::thread watcher_;
};

// The kernels of a step whose stream has been synchronized.
std::vector<TraceRecord> trace_of(const Plan& plan, const std::vector<StepTimes>& times);

// The trace of one step on this rank.
class StepTrace {
 public:
  // To be written to `path`.
  StepTrace(Communicator& devices, std::string path);

  // Through which all steps are to go.
  Communicator& devices() { return devices_; }
  const std::string& path() const { return path_; }
  // The step is about to be started, and is to note its times there.
  std::vector<StepTimes>* begin();
  // Collective, when nothing is under way. Throws UserError when a file cannot be written.
  void write(const Plan& plan, Communicator& hosts);

 private:
  TracedCommunicator devices_;
  std::string path_;
  std::vector<StepTimes> times_;
};

}  // namespace muster
