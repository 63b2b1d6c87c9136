// Channel: the collectives of one communicator on their way through its transport.
//
// A collective is a list of phases; each starts messages, and the next begins when these are complete.
// Collectives travel one after the other in the order of issue, each once its event `after` is complete: what is
// wanted first has the way to itself, and does not arrive with what is wanted last. Each has a tag of its own, for
// the ranks do not end it at the same moment.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/progress.hpp"
#include "comm/transport.hpp"
#include "core/stream.hpp"

namespace muster {

class Channel;

class Collective {
 public:
  using Phase = std::function<void(Collective&)>;

  Collective(std::string what, Event after, std::vector<Phase> phases)
      : what_(std::move(what)), after_(std::move(after)), phases_(std::move(phases)) {}

  // For its phases. Nothing is sent when `bytes` is empty.
  void send(int peer, std::span<const std::byte> bytes);
  void receive(int peer, std::span<std::byte> bytes);
  // A message without bytes.
  void signal(int peer);
  void await_signal(int peer);

  Event done() const { return done_.event(); }

 private:
  friend class Channel;
  bool messages_complete() const;

  std::string what_;
  Event after_;
  Promise done_;
  std::vector<Phase> phases_;
  std::size_t next_phase_ = 0;
  Channel* channel_ = nullptr;
  int tag_ = 0;
  std::vector<Transport::Counter> open_;  // messages under way, by peer
  std::chrono::steady_clock::time_point started_;
};

class Channel final : public Progressing {
 public:
  // `delay` (if any) is called before each collective starts and before it completes.
  Channel(std::unique_ptr<Transport> transport, std::function<void()> delay);
  ~Channel() override;

  Transport& transport() const { return *transport_; }

  // On the progress thread.
  void add(std::unique_ptr<Collective> collective);
  bool advance() override;
  bool idle() const override { return waiting_.empty() && active_ == nullptr; }

  // From any thread.
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  std::optional<PendingCollective> oldest_pending() const;

 private:
  friend class Collective;
  bool start_next();
  // Runs phases of the active collective as far as their messages are complete, and ends it after the last; true if
  // any ran.
  bool run();
  void fail(const std::exception_ptr& failure);

  std::unique_ptr<Transport> transport_;
  std::function<void()> delay_;
  std::deque<std::unique_ptr<Collective>> waiting_;
  mutable std::mutex mutex_;  // held to change active_, and to read it elsewhere than on the progress thread
  std::unique_ptr<Collective> active_;
  std::exception_ptr failure_;  // of an earlier collective: no later one can be trusted
  int next_tag_ = 0;
  std::atomic<std::uint64_t> bytes_sent_ = 0;
};

}  // namespace muster
