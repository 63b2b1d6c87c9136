#include "comm/signs_of_life.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace muster {
namespace {

// The progress thread comes by all the time; a sign may wait as long as it sleeps when it has nothing to do.
constexpr double between_polls = 0.01;

class Exchange final : public SignsOfLife, public Progressing {
 public:
  Exchange(std::shared_ptr<ProgressThread> progress, std::unique_ptr<Transport> transport,
           std::function<Sign()> mine, double interval)
      : progress_(std::move(progress)),
        transport_(std::move(transport)),
        mine_(std::move(mine)),
        interval_(interval),
        peers_(static_cast<std::size_t>(transport_->size())) {
    progress_->call([this] {
      for (int rank = 0; rank < transport_->size(); ++rank)
        if (rank != transport_->rank()) receive(rank);
      progress_->add(*this);
    });
  }

  ~Exchange() override {
    progress_->call([this] {
      progress_->remove(*this);
      transport_->abandon();
      transport_.reset();
    });
  }

  void collect(const std::function<void(int rank, const Sign& sign)>& hear) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [rank, sign] : heard_) hear(rank, sign);
    heard_.clear();
  }

  void leave() override {
    progress_->call([this] { leaving_ = true; });
    left_.event().wait();
  }

  bool advance() override {
    const double now = steady_seconds();
    if (lost_ || now < next_poll_) return false;
    next_poll_ = now + between_polls;
    try {
      transport_->poll();
      take_in();
      if (leaving_ || now >= next_sign_) {
        next_sign_ = now + interval_;
        send();
      }
    } catch (...) {  // a peer is gone, which a collective will tell
      lost_ = true;
      transport_->abandon();
      left_.set_complete();
    }
    return false;  // never a reason to poll more often
  }
  bool idle() const override { return true; }

 private:
  struct Peer {
    Sign in, out;
    Transport::Counter receiving = 0, sending = 0;
    bool told_last = false;
  };

  void receive(int rank) {
    Peer& peer = peers_[static_cast<std::size_t>(rank)];
    transport_->receive(rank, 0, std::as_writable_bytes(std::span(&peer.in, 1)), peer.receiving);
  }

  void take_in() {
    for (int rank = 0; rank < transport_->size(); ++rank) {
      Peer& peer = peers_[static_cast<std::size_t>(rank)];
      if (rank == transport_->rank() || peer.receiving != 0 || peer.in.last) continue;
      {
        const std::lock_guard lock(mutex_);
        heard_.emplace_back(rank, peer.in);
      }
      if (!peer.in.last) receive(rank);
    }
  }

  // One sign at a time is under way to a peer: one that is stopped gets no heap of them.
  void send() {
    Sign sign = mine_();
    sign.last = leaving_;
    bool done = leaving_;
    for (int rank = 0; rank < transport_->size(); ++rank) {
      Peer& peer = peers_[static_cast<std::size_t>(rank)];
      if (rank == transport_->rank()) continue;
      if (peer.sending == 0 && !peer.told_last) {
        peer.out = sign;
        peer.told_last = sign.last;
        transport_->send(rank, 0, std::as_bytes(std::span(&peer.out, 1)), peer.sending);
      }
      done = done && peer.told_last && peer.sending == 0 && peer.in.last && peer.receiving == 0;
    }
    if (done) left_.set_complete();
  }

  std::shared_ptr<ProgressThread> progress_;
  std::unique_ptr<Transport> transport_;
  std::function<Sign()> mine_;
  double interval_;
  // Of the progress thread.
  std::vector<Peer> peers_;
  double next_poll_ = 0, next_sign_ = 0;
  bool leaving_ = false, lost_ = false;
  Promise left_;
  std::mutex mutex_;
  std::vector<std::pair<int, Sign>> heard_;
};

}  // namespace

std::unique_ptr<SignsOfLife> exchange_signs(std::shared_ptr<ProgressThread> progress,
                                            std::unique_ptr<Transport> transport, std::function<Sign()> mine,
                                            double interval) {
  return std::make_unique<Exchange>(std::move(progress), std::move(transport), std::move(mine), interval);
}

}  // namespace muster
