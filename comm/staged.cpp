#include "comm/staged.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace muster {
namespace {

// Three collectives overlap: one on its way out of the device, one among the hosts, one on its way in.
constexpr std::size_t slots = 3;

// So that each slot begins as its memory does, aligned for any element.
std::uint64_t rounded(std::uint64_t slot_bytes) { return (slot_bytes + 63) / 64 * 64; }

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> inner, const Device& device, MemoryAccount& account,
                     std::uint64_t slot_bytes)
      : device_(device),
        account_(account),
        slot_bytes_(rounded(slot_bytes)),
        staging_(account, MemoryKind::communication, slots * slot_bytes_, device.staging()),
        inner_(std::move(inner)),
        out_(device.make_stream(StreamPriority::high)),
        in_(device.make_stream(StreamPriority::high)) {
    check(slot_bytes_ >= static_cast<std::uint64_t>(size()) * sizeof(double),
          "a slot for staging without room");
  }

  // The hosts' collectives are given up first: then nothing that the streams wait for stays open.
  ~StagedCommunicator() override { inner_.reset(); }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  int local_rank() const override { return inner_->local_rank(); }
  int local_size() const override { return inner_->local_size(); }

  Event all_to_all(std::span<const std::span<const std::byte>> send,
                   std::span<const std::span<std::byte>> receive, const std::string& what,
                   const Event& after) override {
    check(send.size() == ranks() && receive.size() == send.size(), "all_to_all wants a piece for each rank");
    std::size_t bytes = 0;
    for (std::size_t r = 0; r < ranks(); ++r)
      if (r != self()) bytes += send[r].size() + receive[r].size();
    check(bytes <= slot_bytes_, "an all_to_all larger than a slot for staging");
    Slot slot = begin(after);
    std::vector<std::span<const std::byte>> outgoing(ranks());
    std::vector<std::span<std::byte>> incoming(ranks());
    for (std::size_t r = 0; r < ranks(); ++r) {
      if (r == self()) continue;
      outgoing[r] = copy_out(slot, send[r]);
      incoming[r] = slot.take(receive[r].size());
    }
    const Event sent = out_->record();
    return end(slot, sent, inner_->all_to_all(outgoing, incoming, what, sent), incoming, receive);
  }

  Event all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                   const Event& after) override {
    check(pieces.size() == ranks(), "all_gather wants a piece of each rank");
    std::size_t longest = 0;
    for (const auto& piece : pieces) longest = std::max(longest, piece.size());
    return in_parts(longest, slot_bytes_ / ranks(), [&](std::size_t offset, std::size_t bytes) {
      Slot slot = begin(after);
      std::vector<std::span<std::byte>> parts, staged;
      for (const auto& piece : pieces) {
        const std::size_t from = std::min(offset, piece.size());
        parts.push_back(piece.subspan(from, std::min(bytes, piece.size() - from)));
        staged.push_back(parts.size() - 1 == self() ? copy_out(slot, parts.back())
                                                    : slot.take(parts.back().size()));
      }
      const Event sent = out_->record(), arrived = inner_->all_gather(staged, what, sent);
      staged[self()] = {};
      return end(slot, sent, arrived, staged, parts);
    });
  }

  Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                   const Event& after) override {
    constexpr std::size_t element = sizeof(double);  // the widest type: parts hold whole elements of any
    return in_parts(data.size(), slot_bytes_ / element * element, [&](std::size_t offset, std::size_t bytes) {
      Slot slot = begin(after);
      const auto part = data.subspan(offset, bytes), staged = copy_out(slot, part);
      const Event sent = out_->record();
      return end(slot, sent, inner_->all_reduce(staged, type, op, what, sent), std::array{staged},
                 std::array{part});
    });
  }

  Event broadcast(std::span<std::byte> data, int root, const std::string& what, const Event& after) override {
    return in_parts(data.size(), slot_bytes_, [&](std::size_t offset, std::size_t bytes) {
      Slot slot = begin(after);
      const auto part = data.subspan(offset, bytes),
                 staged = rank() == root ? copy_out(slot, part) : slot.take(bytes);
      const Event sent = out_->record(), arrived = inner_->broadcast(staged, root, what, sent);
      return end(slot, sent, arrived, std::array{rank() == root ? std::span<std::byte>{} : staged},
                 std::array{part});
    });
  }

  Event barrier(const std::string& what) override { return inner_->barrier(what); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<StagedCommunicator>(inner_->split(color, key), device_, account_, slot_bytes_);
  }

  std::uint64_t bytes_sent() const override { return inner_->bytes_sent(); }
  std::optional<PendingCollective> oldest_pending() const override { return inner_->oldest_pending(); }

  void abort(int exit_code) override {
    inner_->abort(exit_code);
    std::abort();  // never reached: gcc does not believe a virtual function that it will not return
  }

 private:
  // Staging memory of one collective, handed out piece by piece.
  struct Slot {
    std::size_t index;
    std::span<std::byte> free;

    std::span<std::byte> take(std::size_t bytes) {
      const auto taken = free.first(bytes);
      free = free.subspan(bytes);
      return taken;
    }
  };

  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  std::size_t self() const { return static_cast<std::size_t>(rank()); }

  // The slot whose turn it is; what is copied into it comes after its last use, and after `after`.
  Slot begin(const Event& after) {
    const std::size_t index = next_++ % slots;
    out_->wait(slot_free_[index]);
    out_->wait(after);
    return {index, staging_.as<std::byte>().subspan(index * slot_bytes_, slot_bytes_)};
  }

  std::span<std::byte> copy_out(Slot& slot, std::span<const std::byte> from) {
    const auto staged = slot.take(from.size());
    out_->copy(staged.data(), from.data(), from.size());
    return staged;
  }

  // What was sent has left the device before its host waits in `in_` for what comes: there it must not wait for
  // work of the device that nothing orders before.
  template <class Staged, class To>
  Event end(const Slot& slot, const Event& sent, const Event& arrived, const Staged& staged, const To& to) {
    in_->wait(sent);
    in_->wait(arrived);
    for (std::size_t i = 0; i < staged.size(); ++i)
      in_->copy(to[i].data(), staged[i].data(), staged[i].size());
    return slot_free_[slot.index] = in_->record();
  }

  // Calls part(offset, bytes) for each `at_a_time` of `bytes`, once at least; the last part's event ends all.
  template <class Part>
  Event in_parts(std::size_t bytes, std::size_t at_a_time, const Part& part) {
    Event last = part(std::size_t{0}, std::min(bytes, at_a_time));
    for (std::size_t offset = at_a_time; offset < bytes; offset += at_a_time)
      last = part(offset, std::min(at_a_time, bytes - offset));
    return last;
  }

  const Device& device_;
  MemoryAccount& account_;
  std::size_t slot_bytes_;
  Buffer staging_;
  std::unique_ptr<Communicator> inner_;
  std::array<Event, slots> slot_free_;
  std::size_t next_ = 0;
  std::unique_ptr<Stream> out_, in_;  // they end before the memory that they touch
};

}  // namespace

std::unique_ptr<Communicator> staged_communicator(Communicator& host, const Device& device,
                                                  MemoryAccount& account, std::uint64_t slot_bytes) {
  device.use();
  return std::make_unique<StagedCommunicator>(host.split(0, host.rank()), device, account, slot_bytes);
}

std::uint64_t staged_bytes(std::uint64_t slot_bytes) { return Buffer::counted(slots * rounded(slot_bytes)); }

}  // namespace muster
