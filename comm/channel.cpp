#include "comm/channel.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace muster {
namespace {

// MPI promises tags up to 32767. Tags come again long after their collectives have ended.
constexpr int tags = 32768;

}  // namespace

void Collective::send(int peer, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  channel_->transport_->send(peer, tag_, bytes, open_[static_cast<std::size_t>(peer)]);
  channel_->bytes_sent_ += bytes.size();
}

void Collective::receive(int peer, std::span<std::byte> bytes) {
  if (bytes.empty()) return;
  channel_->transport_->receive(peer, tag_, bytes, open_[static_cast<std::size_t>(peer)]);
}

void Collective::signal(int peer) {
  channel_->transport_->send(peer, tag_, {}, open_[static_cast<std::size_t>(peer)]);
}

void Collective::await_signal(int peer) {
  channel_->transport_->receive(peer, tag_, {}, open_[static_cast<std::size_t>(peer)]);
}

bool Collective::messages_complete() const {
  return std::ranges::all_of(open_, [](const Transport::Counter& open) { return open == 0; });
}

Channel::Channel(std::unique_ptr<Transport> transport, std::function<void()> delay)
    : transport_(std::move(transport)), delay_(std::move(delay)) {}

Channel::~Channel() {
  if (!idle())
    fail(std::make_exception_ptr(PeerError("the communicator was closed before its collectives ended")));
}

void Channel::add(std::unique_ptr<Collective> collective) {
  if (failure_) {
    collective->done_.set_complete(failure_);
    return;
  }
  collective->channel_ = this;
  collective->tag_ = next_tag_;
  next_tag_ = (next_tag_ + 1) % tags;
  collective->open_ = std::vector<Transport::Counter>(static_cast<std::size_t>(transport_->size()));
  waiting_.push_back(std::move(collective));
}

bool Channel::advance() {
  if (failure_) return false;
  try {
    bool moved = transport_->poll();
    if (active_ != nullptr && run()) moved = true;
    while (start_next()) moved = true;
    return moved;
  } catch (...) {
    fail(std::current_exception());
    return true;
  }
}

bool Channel::start_next() {
  if (active_ != nullptr || waiting_.empty() || !waiting_.front()->after_.complete()) return false;
  Collective& next = *waiting_.front();
  next.after_.wait();  // complete: throws what its stream failed with
  if (delay_) delay_();
  next.started_ = std::chrono::steady_clock::now();
  {
    const std::lock_guard lock(mutex_);
    active_ = std::move(waiting_.front());
  }
  waiting_.pop_front();
  run();
  return true;
}

bool Channel::run() {
  bool ran = false;
  while (active_ != nullptr && active_->messages_complete()) {
    ran = true;
    if (active_->next_phase_ < active_->phases_.size()) {
      active_->phases_[active_->next_phase_++](*active_);
      continue;
    }
    if (delay_) delay_();
    active_->done_.set_complete();
    const std::lock_guard lock(mutex_);
    active_.reset();
  }
  return ran;
}

void Channel::fail(const std::exception_ptr& failure) {
  failure_ = failure;
  transport_->abandon();
  if (active_ != nullptr) active_->done_.set_complete(failure);
  for (const auto& collective : waiting_) collective->done_.set_complete(failure);
  waiting_.clear();
  const std::lock_guard lock(mutex_);
  active_.reset();
}

std::optional<PendingCollective> Channel::oldest_pending() const {
  const std::lock_guard lock(mutex_);
  if (active_ == nullptr) return std::nullopt;
  const Collective& oldest = *active_;
  PendingCollective pending{oldest.what_, 0, {}};
  pending.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - oldest.started_).count();
  for (std::size_t peer = 0; peer < oldest.open_.size(); ++peer)
    if (oldest.open_[peer] != 0) pending.waiting.push_back(static_cast<int>(peer));
  return pending;
}

}  // namespace muster
