#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "comm/agree.hpp"
#include "comm/nccl.hpp"
#include "comm/nccl/check.hpp"
#include "comm/nccl/link.hpp"
#include "core/error.hpp"

namespace muster {
namespace {

using namespace std::chrono_literals;

// The end of a collective. Streams of the device wait for it as for any point of NCCL's stream; a host that
// waits also looks whether the peers are still there.
class Ended final : public Event::Point {
 public:
  Ended(std::shared_ptr<NcclLink> link, Event done) : link_(std::move(link)), done_(std::move(done)) {}

  bool complete() const override { return done_.complete(); }
  void wait() const override {
    // An eighth of the time waited so far: noticed soon in proportion.
    const double start = steady_seconds();
    while (!done_.complete()) {
      try {
        link_->look();
      } catch (...) {
        link_->give_up(std::current_exception());
        throw;
      }
      const std::chrono::duration<double> pause((steady_seconds() - start) / 8);
      std::this_thread::sleep_for(std::clamp<std::chrono::duration<double>>(pause, 10us, 1ms));
    }
    link_->expect_sound();
    done_.wait();
  }
  const Event::Point& on_stream() const override { return *done_.point(); }

 private:
  std::shared_ptr<NcclLink> link_;
  Event done_;
};

ncclDataType_t type_of(ReduceType type) {
  switch (type) {
    case ReduceType::f32:
      return ncclFloat32;
    case ReduceType::f64:
      return ncclFloat64;
    case ReduceType::i64:
      return ncclInt64;
  }
  throw Defect("unknown reduce type");
}

std::size_t width_of(ReduceType type) { return type == ReduceType::f32 ? 4 : 8; }

// Whether the pieces are the equal parts of one array, in order.
template <class T>
bool divide_one_array(std::span<const std::span<T>> pieces) {
  for (std::size_t r = 0; r < pieces.size(); ++r)
    if (pieces[r].size() != pieces[0].size() || pieces[r].data() != pieces[0].data() + r * pieces[0].size())
      return false;
  return true;
}

class NcclCommunicator final : public Communicator {
 public:
  // `part` is `host` where this communicator owns it.
  NcclCommunicator(Communicator& host, std::unique_ptr<Communicator> part, const Device& device,
                   double deadline)
      : part_(std::move(part)),
        host_(host),
        device_(device),
        deadline_(deadline),
        exceptions_(std::uncaught_exceptions()),
        stream_(device.make_stream(StreamPriority::high)),
        link_(std::make_shared<NcclLink>(unique_id(), size(), rank(), deadline)) {}

  // Whoever leaves by an exception does not wait for peers, which may wait for this rank elsewhere.
  ~NcclCommunicator() override {
    try {
      link_->close(std::uncaught_exceptions() == exceptions_ && prune());
    } catch (const std::exception&) {
      // A peer has left before the end; whoever still needs it has an error to tell.
    }
  }

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int local_rank() const override { return host_.local_rank(); }
  int local_size() const override { return host_.local_size(); }
  bool sums() const override { return true; }

  Event all_to_all(std::span<const std::span<const std::byte>> send,
                   std::span<const std::span<std::byte>> receive, const std::string& what,
                   const Event& after) override {
    check(send.size() == ranks() && receive.size() == send.size(), "all_to_all wants a piece for each rank");
    return issue(what, after, bytes_for_others(send), [&](ncclComm_t comm, cudaStream_t stream) {
      for (int peer = 0; peer < size(); ++peer) {
        const auto& out = send[static_cast<std::size_t>(peer)];
        const auto& in = receive[static_cast<std::size_t>(peer)];
        if (peer == rank()) continue;
        if (!out.empty())
          check_nccl(ncclSend(out.data(), out.size(), ncclUint8, peer, comm, stream), "ncclSend", comm);
        if (!in.empty())
          check_nccl(ncclRecv(in.data(), in.size(), ncclUint8, peer, comm, stream), "ncclRecv", comm);
      }
    });
  }

  Event all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                   const Event& after) override {
    check(pieces.size() == ranks(), "all_gather wants a piece of each rank");
    return issue(what, after, pieces[self()].size() * (ranks() - 1),
                 [&](ncclComm_t comm, cudaStream_t stream) { gather(pieces, comm, stream); });
  }

  // One launch for all.
  std::vector<Event> all_gathers(std::span<const std::vector<std::span<std::byte>>> rounds,
                                 const std::string& what, const Event& after) override {
    std::uint64_t bytes = 0;
    for (const auto& pieces : rounds) {
      check(pieces.size() == ranks(), "all_gather wants a piece of each rank");
      bytes += pieces[self()].size() * (ranks() - 1);
    }
    return {issue(what, after, bytes, [&](ncclComm_t comm, cudaStream_t stream) {
      for (const auto& pieces : rounds) gather(pieces, comm, stream);
    })};
  }

  Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                   const Event& after) override {
    const std::size_t width = width_of(type);
    check(data.size() % width == 0 && reinterpret_cast<std::uintptr_t>(data.data()) % width == 0,
          "all_reduce of memory that does not hold whole aligned elements");
    // Each rank sums one part and hands it on.
    const std::size_t sent = 2 * (data.size() - data.size() / ranks());
    return issue(what, after, sent, [&](ncclComm_t comm, cudaStream_t stream) {
      check_nccl(ncclAllReduce(data.data(), data.data(), data.size() / width, type_of(type),
                               op == ReduceOp::sum ? ncclSum : ncclMax, comm, stream),
                 "ncclAllReduce", comm);
    });
  }

  Event reduce_scatter(std::span<const std::span<float>> pieces, const std::string& what,
                       const Event& after) override {
    check(pieces.size() == ranks(), "reduce_scatter wants a piece for each rank");
    return issue(what, after, bytes_for_others(pieces), [&](ncclComm_t comm, cudaStream_t stream) {
      if (divide_one_array(pieces)) {
        check_nccl(ncclReduceScatter(pieces[0].data(), pieces[self()].data(), pieces[0].size(), ncclFloat32,
                                     ncclSum, comm, stream),
                   "ncclReduceScatter", comm);
        return;
      }
      for (int root = 0; root < size(); ++root) {
        const std::span<float> piece = pieces[static_cast<std::size_t>(root)];
        if (!piece.empty())
          check_nccl(
              ncclReduce(piece.data(), piece.data(), piece.size(), ncclFloat32, ncclSum, root, comm, stream),
              "ncclReduce", comm);
      }
    });
  }

  Event broadcast(std::span<std::byte> data, int root, const std::string& what, const Event& after) override {
    check(0 <= root && root < size(), "a broadcast from a rank outside the communicator");
    const std::size_t sent = rank() == root ? data.size() * (ranks() - 1) : 0;
    return issue(what, after, sent,
                 [&](ncclComm_t comm, cudaStream_t stream) { broadcast_from(root, data, comm, stream); });
  }

  Event barrier(const std::string& what) override { return host_.barrier(what); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    auto part = host_.split(color, key);
    Communicator& host = *part;
    return std::make_unique<NcclCommunicator>(host, std::move(part), device_, deadline_);
  }

  std::uint64_t bytes_sent() const override { return bytes_sent_; }

  // What the host's ranks wait for counts, too: the watchdog watches one communicator of the two.
  std::optional<PendingCollective> oldest_pending() const override {
    link_->look();
    if (prune()) return host_.oldest_pending();
    const std::lock_guard lock(mutex_);
    if (pending_.empty()) return host_.oldest_pending();
    Pending& oldest = pending_.front();
    if (!oldest.started.complete()) return std::nullopt;
    if (!oldest.since) oldest.since = steady_seconds();
    PendingCollective pending{oldest.what, steady_seconds() - *oldest.since, {}};
    for (int peer = 0; peer < size(); ++peer)  // NCCL does not tell which
      if (peer != rank()) pending.waiting.push_back(peer);
    return pending;
  }

  // The processes' end frees their GPUs. Giving NCCL up before could wait for another thread's call.
  void abort(int exit_code) override {
    host_.abort(exit_code);
    std::abort();  // never reached: gcc does not believe a virtual function that it will not return
  }

 private:
  struct Pending {
    std::string what;
    Event started;
    std::optional<Event> done;         // none while NCCL still takes the call
    std::optional<double> since = {};  // when `started` was first seen complete
  };

  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  std::size_t self() const { return static_cast<std::size_t>(rank()); }

  ncclUniqueId unique_id() {
    device_.use();
    auto id = agree(host_, "the start of NCCL", [&] {
      ncclUniqueId made{};
      if (rank() == 0) check_nccl(ncclGetUniqueId(&made), "ncclGetUniqueId");
      return made;
    });
    host_.broadcast(std::as_writable_bytes(std::span(id.internal)), 0, "NCCL's unique id").wait();
    // Ranks that went ahead while others still wait for the id have been seen to block each other.
    host_.barrier("NCCL's unique id").wait();
    return id;
  }

  template <class T>
  std::uint64_t bytes_for_others(std::span<const std::span<T>> pieces) const {
    std::uint64_t bytes = 0;
    for (std::size_t r = 0; r < pieces.size(); ++r)
      if (r != self()) bytes += pieces[r].size_bytes();
    return bytes;
  }

  void gather(std::span<const std::span<std::byte>> pieces, ncclComm_t comm, cudaStream_t stream) const {
    if (divide_one_array(pieces)) {
      check_nccl(ncclAllGather(pieces[self()].data(), pieces[0].data(), pieces[self()].size(), ncclUint8,
                               comm, stream),
                 "ncclAllGather", comm);
      return;
    }
    for (int root = 0; root < size(); ++root)
      broadcast_from(root, pieces[static_cast<std::size_t>(root)], comm, stream);
  }

  static void broadcast_from(int root, std::span<std::byte> data, ncclComm_t comm, cudaStream_t stream) {
    if (data.empty()) return;
    check_nccl(ncclBroadcast(data.data(), data.data(), data.size(), ncclUint8, root, comm, stream),
               "ncclBroadcast", comm);
  }

  template <class Body>
  Event issue(const std::string& what, const Event& after, std::uint64_t bytes, Body&& body) {
    prune();
    stream_->wait(after);
    {
      const std::lock_guard lock(mutex_);
      pending_.push_back({what, stream_->record(), {}, {}});
    }
    stream_->enqueue([&](NativeStream native) {
      link_->group(what, [&](ncclComm_t comm) { body(comm, static_cast<cudaStream_t>(native)); });
    });
    bytes_sent_ += bytes;
    const Event done = stream_->record();
    const std::lock_guard lock(mutex_);
    pending_.back().done = done;
    return Event(std::make_shared<Ended>(link_, done));
  }

  // Forgets what has ended; whether that is all.
  bool prune() const {
    const std::lock_guard lock(mutex_);
    while (!pending_.empty() && pending_.front().done && pending_.front().done->complete())
      pending_.pop_front();
    return pending_.empty();
  }

  std::unique_ptr<Communicator> part_;
  Communicator& host_;
  const Device& device_;
  double deadline_;
  int exceptions_;  // in flight when this was made
  std::unique_ptr<Stream> stream_;
  std::shared_ptr<NcclLink> link_;
  std::atomic<std::uint64_t> bytes_sent_ = 0;
  mutable std::mutex mutex_;  // held to touch pending_
  mutable std::deque<Pending> pending_;
};

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(Communicator& host, const Device& device, double deadline) {
  return std::make_unique<NcclCommunicator>(host, nullptr, device, deadline);
}

}  // namespace muster
