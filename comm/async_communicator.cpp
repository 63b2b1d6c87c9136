#include "comm/async_communicator.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "comm/signs_of_life.hpp"
#include "core/error.hpp"

namespace muster {
namespace {

// Part `index` of `parts` consecutive parts; the first take the remainder.
template <class T>
std::span<T> part_of(std::span<T> whole, int parts, int index) {
  const auto n = static_cast<std::size_t>(parts), i = static_cast<std::size_t>(index);
  const std::size_t share = whole.size() / n, larger = whole.size() % n;
  return whole.subspan(i * share + std::min(i, larger), share + (i < larger ? 1 : 0));
}

// Calls body(peer) for the other ranks, the next one first, so that not all begin with the same peer.
template <class Body>
void for_each_peer(int rank, int size, Body&& body) {
  for (int distance = 1; distance < size; ++distance) body((rank + distance) % size);
}

template <class T>
std::span<const std::byte> bytes_of(std::span<T> values) {
  return std::as_bytes(values);
}

}  // namespace

AsyncCommunicator::AsyncCommunicator(std::shared_ptr<ProgressThread> progress,
                                     std::unique_ptr<Transport> transport, MemoryAccount& account,
                                     std::function<void()> delay)
    : progress_(std::move(progress)),
      account_(account),
      delay_(std::move(delay)),
      rank_(transport->rank()),
      size_(transport->size()),
      staging_(account, MemoryKind::communication, size_ > 1 ? staging_bytes : 0),
      channel_(std::make_unique<Channel>(std::move(transport), delay_)) {
  progress_->call([this] { progress_->add(*channel_); });
}

AsyncCommunicator::~AsyncCommunicator() {
  progress_->call([this] {
    progress_->remove(*channel_);
    channel_.reset();
  });
}

Event AsyncCommunicator::issue(const std::string& what, const Event& after,
                               std::vector<Collective::Phase> phases) {
  auto collective = std::make_shared<std::unique_ptr<Collective>>(
      std::make_unique<Collective>(what, after, std::move(phases)));
  const Event done = (*collective)->done();
  progress_->post([this, collective] { channel_->add(std::move(*collective)); });
  return done;
}

Event AsyncCommunicator::all_to_all(std::span<const std::span<const std::byte>> send,
                                    std::span<const std::span<std::byte>> receive, const std::string& what,
                                    const Event& after) {
  check(send.size() == static_cast<std::size_t>(size_) && receive.size() == send.size(),
        "all_to_all wants a piece for each rank");
  std::vector<std::span<const std::byte>> outgoing(send.begin(), send.end());
  std::vector<std::span<std::byte>> incoming(receive.begin(), receive.end());
  return issue(what, after, {[this, outgoing, incoming](Collective& self) {
                 for_each_peer(rank_, size_, [&](int peer) {
                   self.receive(peer, incoming[static_cast<std::size_t>(peer)]);
                 });
                 for_each_peer(rank_, size_,
                               [&](int peer) { self.send(peer, outgoing[static_cast<std::size_t>(peer)]); });
               }});
}

Event AsyncCommunicator::all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                                    const Event& after) {
  check(pieces.size() == static_cast<std::size_t>(size_), "all_gather wants a piece of each rank");
  const std::span<const std::byte> own = pieces[static_cast<std::size_t>(rank_)];
  return all_to_all(std::vector(static_cast<std::size_t>(size_), own), pieces, what, after);
}

Event AsyncCommunicator::broadcast(std::span<std::byte> data, int root, const std::string& what,
                                   const Event& after) {
  check(0 <= root && root < size_, "a broadcast from a rank outside the communicator");
  // The root deals a part to each rank, then all hand their parts on: nobody sends the whole to everybody.
  const auto deal = [this, data, root](Collective& self) {
    if (rank_ != root) return self.receive(root, part_of(data, size_, rank_));
    for_each_peer(rank_, size_, [&](int peer) { self.send(peer, part_of(data, size_, peer)); });
  };
  const auto hand_on = [this, data, root](Collective& self) {
    for_each_peer(rank_, size_, [&](int peer) {
      if (rank_ != root) self.receive(peer, part_of(data, size_, peer));
    });
    for_each_peer(rank_, size_, [&](int peer) {
      if (peer != root) self.send(peer, part_of(data, size_, rank_));
    });
  };
  return issue(what, after, {deal, hand_on});
}

Event AsyncCommunicator::barrier(const std::string& what) {
  // In round k each rank signals to the one 2^k ahead: after the last, all know of all.
  std::vector<Collective::Phase> rounds;
  for (int distance = 1; distance < size_; distance *= 2)
    rounds.push_back([this, distance](Collective& self) {
      self.await_signal((rank_ - distance + size_) % size_);
      self.signal((rank_ + distance) % size_);
    });
  return issue(what, {}, std::move(rounds));
}

Event AsyncCommunicator::all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op,
                                    const std::string& what, const Event& after) {
  const auto typed = [&]<class T>(T) {
    check(data.size() % sizeof(T) == 0 && reinterpret_cast<std::uintptr_t>(data.data()) % alignof(T) == 0,
          "all_reduce of memory that does not hold whole aligned elements");
    return all_reduce_typed(std::span<T>(reinterpret_cast<T*>(data.data()), data.size() / sizeof(T)), op,
                            what, after);
  };
  switch (type) {
    case ReduceType::f32:
      return typed(float{});
    case ReduceType::f64:
      return typed(double{});
    case ReduceType::i64:
      return typed(std::int64_t{});
  }
  throw Defect("unknown reduce type");
}

// Each rank sums its part of a piece, which the others send to it, and sends the sum to the others.
template <class T>
Event AsyncCommunicator::all_reduce_typed(std::span<T> data, ReduceOp op, const std::string& what,
                                          const Event& after) {
  std::vector<Collective::Phase> phases;
  if (size_ == 1) return issue(what, after, {});
  const auto staged =
      static_cast<std::size_t>(staging_bytes / sizeof(T)) / static_cast<std::size_t>(size_ - 1);
  check(staged > 0, "more ranks than all_reduce has staging for");
  const std::size_t piece_elements = staged * static_cast<std::size_t>(size_);
  // Where the contribution of `peer` to this rank's part is staged.
  const auto contribution = [this, staged](int peer, std::size_t elements) {
    const auto place = static_cast<std::size_t>(peer < rank_ ? peer : peer - 1);
    return staging_.as<T>().subspan(place * staged, elements);
  };
  for (std::size_t begin = 0; begin < data.size(); begin += piece_elements) {
    const std::span<T> piece = data.subspan(begin, std::min(piece_elements, data.size() - begin));
    const std::span<T> own = part_of(piece, size_, rank_);
    phases.push_back([this, piece, own, contribution](Collective& self) {
      for_each_peer(rank_, size_, [&](int peer) {
        self.receive(peer, std::as_writable_bytes(contribution(peer, own.size())));
      });
      for_each_peer(rank_, size_, [&](int peer) { self.send(peer, bytes_of(part_of(piece, size_, peer))); });
    });
    phases.push_back([this, piece, own, contribution, op](Collective& self) {
      for (std::size_t i = 0; i < own.size(); ++i) {
        const auto of_rank = [&](int r) { return r == rank_ ? own[i] : contribution(r, own.size())[i]; };
        T result = of_rank(0);
        for (int r = 1; r < size_; ++r)
          result = op == ReduceOp::sum ? result + of_rank(r) : std::max(result, of_rank(r));
        own[i] = result;
      }
      for_each_peer(rank_, size_, [&](int peer) {
        self.receive(peer, std::as_writable_bytes(part_of(piece, size_, peer)));
      });
      for_each_peer(rank_, size_, [&](int peer) { self.send(peer, bytes_of(own)); });
    });
  }
  return issue(what, after, std::move(phases));
}

std::unique_ptr<Transport> AsyncCommunicator::split_transport(int color, int key) {
  // The transport's split blocks the progress thread; behind a barrier it does so only for a moment.
  barrier("split").wait();
  const Pulse::Work work = pulse().work("split");
  std::unique_ptr<Transport> part;
  progress_->call([&] { part = channel_->transport().split(color, key); });
  return part;
}

std::unique_ptr<Communicator> AsyncCommunicator::split(int color, int key) {
  check(color >= 0, "a split wants a color that is not negative");
  return std::make_unique<AsyncCommunicator>(progress_, split_transport(color, key), account_, delay_);
}

std::unique_ptr<SignsOfLife> AsyncCommunicator::exchange_signs(const std::function<Sign()>& mine,
                                                               double interval) {
  if (size_ == 1) return nullptr;
  return muster::exchange_signs(progress_, split_transport(0, rank_), mine, interval);
}

void AsyncCommunicator::abort(int exit_code) {
  channel_->transport().abort(exit_code);
  std::abort();  // never reached: gcc does not believe a virtual function that it will not return
}

}  // namespace muster
