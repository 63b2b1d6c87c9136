// Streams and a communicator that take every liberty which their contracts leave them, so that a missing wait
// shows in the results.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "core/parallel.hpp"
#include "core/philox.hpp"
#include "core/stream.hpp"

namespace muster::shaken {

// A compute stream with a thread of its own, which pauses for up to 200 us before every eighth piece of work.
class DelayedStream final : public Stream {
 public:
  // `threads` is the number of threads of the kernels.
  DelayedStream(std::uint64_t seed, int threads) : stream_(random_pauses(seed)) {
    stream_.enqueue([threads](NativeStream) { set_thread_count(threads); });
  }
  void enqueue(Work work) override { stream_.enqueue(std::move(work)); }
  void copy(void* to, const void* from, std::size_t bytes) override { stream_.copy(to, from, bytes); }
  void wait(const Event& event) override { stream_.wait(event); }
  Event record() override { return stream_.record(); }
  std::function<double()> timestamp() override { return stream_.timestamp(); }

 private:
  static std::function<void()> random_pauses(std::uint64_t seed) {
    return [seed, drawn = std::uint32_t{0}]() mutable {
      const Philox4 random = philox({drawn++, 0, 0, 0}, seed);
      if (random[0] % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random[1] % 200));
    };
  }
  ThreadStream stream_;
};

// A program without the waits of its compute stream.
class StreamWithoutWaits final : public Stream {
 public:
  explicit StreamWithoutWaits(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
  void enqueue(Work work) override { stream_->enqueue(std::move(work)); }
  void copy(void* to, const void* from, std::size_t bytes) override { stream_->copy(to, from, bytes); }
  void wait(const Event&) override {}
  Event record() override { return stream_->record(); }
  std::function<double()> timestamp() override { return stream_->timestamp(); }

 private:
  std::unique_ptr<Stream> stream_;
};

// Large messages start late and end late: memory to send is read a while after `after`, memory to fill is
// filled a while after the message came, and only then is the event complete. Small ones overtake them, so
// that waiting for one of these is no wait for those before it.
class LateCommunicator final : public Communicator {
 public:
  LateCommunicator(Communicator& comm, std::chrono::milliseconds late) : comm_(comm), late_(late) {}

  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  int local_rank() const override { return comm_.local_rank(); }
  int local_size() const override { return comm_.local_size(); }

  Event all_to_all(std::span<const std::span<const std::byte>> send,
                   std::span<const std::span<std::byte>> receive, const std::string& what,
                   const Event& after) override {
    const auto staged = std::make_shared<Staged>(receive);
    const Event arrived = comm_.all_to_all(send, staged->spans, what, started(after));
    return finished(staged, {receive.begin(), receive.end()}, arrived);
  }

  Event all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                   const Event& after) override {
    const std::size_t mine_bytes = pieces[static_cast<std::size_t>(rank())].size();
    if (mine_bytes < small_bytes) return comm_.all_gather(pieces, what, after);
    const auto staged = std::make_shared<Staged>(pieces);
    const auto mine = static_cast<std::size_t>(rank());
    staged->spans[mine] = pieces[mine];
    const Event arrived = comm_.all_gather(staged->spans, what, started(after));
    std::vector<std::span<std::byte>> to(pieces.begin(), pieces.end());
    to[mine] = {};
    return finished(staged, std::move(to), arrived);
  }

  Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                   const Event& after) override {
    return comm_.all_reduce(data, type, op, what, after);
  }
  Event broadcast(std::span<std::byte> data, int root, const std::string& what, const Event& after) override {
    return comm_.broadcast(data, root, what, after);
  }
  Event barrier(const std::string& what) override { return comm_.barrier(what); }
  std::unique_ptr<Communicator> split(int color, int key) override { return comm_.split(color, key); }
  std::uint64_t bytes_sent() const override { return comm_.bytes_sent(); }
  std::optional<PendingCollective> oldest_pending() const override { return comm_.oldest_pending(); }
  [[noreturn]] void abort(int exit_code) override {
    comm_.abort(exit_code);
    std::abort();  // never reached, but only the compiler does not know
  }

  // Blocks until nothing is under way that nobody waited for.
  void drain() { ends_.synchronize(); }

 private:
  struct Staged {
    std::vector<std::vector<std::byte>> memory;
    std::vector<std::span<std::byte>> spans;

    template <class Spans>
    explicit Staged(const Spans& like) {
      for (const auto& span : like) memory.emplace_back(span.size());
      for (auto& piece : memory) spans.emplace_back(piece);
    }
  };

  static constexpr std::size_t small_bytes = 4096;  // less than a block of parameters

  Event started(const Event& after) {
    starts_.wait(after);
    starts_.enqueue([late = late_](NativeStream) { std::this_thread::sleep_for(late); });
    return starts_.record();
  }
  Event finished(const std::shared_ptr<Staged>& staged, std::vector<std::span<std::byte>> to,
                 const Event& arrived) {
    ends_.wait(arrived);
    ends_.enqueue([staged, to = std::move(to), late = late_](NativeStream) {
      std::this_thread::sleep_for(late);
      for (std::size_t r = 0; r < to.size(); ++r)
        if (!to[r].empty()) std::memcpy(to[r].data(), staged->memory[r].data(), to[r].size());
    });
    return ends_.record();
  }

  Communicator& comm_;
  std::chrono::milliseconds late_;
  ThreadStream starts_, ends_;
};

}  // namespace muster::shaken
