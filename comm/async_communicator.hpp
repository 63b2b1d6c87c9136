// AsyncCommunicator: the collectives, made of point-to-point messages; the same code for every backend.
// Messages go from and into the caller's own memory.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/channel.hpp"
#include "comm/communicator.hpp"
#include "comm/progress.hpp"
#include "comm/transport.hpp"
#include "core/memory.hpp"

namespace muster {

class AsyncCommunicator final : public Communicator {
 public:
  // What all_reduce takes from the account (nothing when there is one rank): data goes through it piece by
  // piece.
  static constexpr std::uint64_t staging_bytes = 256 << 10;

  // `delay`: see Channel.
  AsyncCommunicator(std::shared_ptr<ProgressThread> progress, std::unique_ptr<Transport> transport,
                    MemoryAccount& account, std::function<void()> delay = {});
  // Collectives still under way are given up: their events fail.
  ~AsyncCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return channel_->transport().local_rank(); }
  int local_size() const override { return channel_->transport().local_size(); }
  Event all_to_all(std::span<const std::span<const std::byte>> send,
                   std::span<const std::span<std::byte>> receive, const std::string& what,
                   const Event& after) override;
  Event all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                   const Event& after) override;
  Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                   const Event& after) override;
  Event broadcast(std::span<std::byte> data, int root, const std::string& what, const Event& after) override;
  Event barrier(const std::string& what) override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  std::uint64_t bytes_sent() const override { return channel_->bytes_sent(); }
  std::optional<PendingCollective> oldest_pending() const override { return channel_->oldest_pending(); }
  std::unique_ptr<SignsOfLife> exchange_signs(const std::function<Sign()>& mine, double interval) override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  std::unique_ptr<Transport> split_transport(int color, int key);
  Event issue(const std::string& what, const Event& after, std::vector<Collective::Phase> phases);
  template <class T>
  Event all_reduce_typed(std::span<T> data, ReduceOp op, const std::string& what, const Event& after);

  std::shared_ptr<ProgressThread> progress_;
  MemoryAccount& account_;
  std::function<void()> delay_;
  int rank_;
  int size_;
  Buffer staging_;
  std::unique_ptr<Channel> channel_;
};

}  // namespace muster
