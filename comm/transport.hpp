// Transport: point-to-point messages among the ranks of one communicator, the only thing in which the
// backends differ. All of it is called by the progress thread alone, but for rank, size and abort.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>

namespace muster {

class Transport {
 public:
  // How many messages of one kind are under way; read by the watchdog while messages complete.
  using Counter = std::atomic<int>;

  virtual ~Transport() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;

  // Starts a message; it counts in `open` until its memory may be used again. Messages with the same tag
  // between the same two ranks arrive in the order of their sending.
  virtual void send(int peer, int tag, std::span<const std::byte> bytes, Counter& open) = 0;
  virtual void receive(int peer, int tag, std::span<std::byte> bytes, Counter& open) = 0;

  // Completes what has arrived; true if anything did. Never blocks. Throws PeerError when a peer is lost.
  virtual bool poll() = 0;

  // Gives up all messages under way, so that their memory is no longer touched.
  virtual void abandon() = 0;

  // Every rank of this transport calls it together; blocks.
  virtual std::unique_ptr<Transport> split(int color, int key) = 0;

  [[noreturn]] virtual void abort(int exit_code) = 0;
};

}  // namespace muster
