// Communicator: collectives among ranks, in bytes, counts and types. It knows nothing of models.
//
// Every collective is asynchronous: it starts when `after` is complete and everything issued before it on
// this communicator has started, and returns an Event that completes it. Memory given to a collective must
// stay untouched until then. All ranks issue the same collectives in the same order; `what` names a
// collective in the watchdog's report ("all_gather of parameters, bucket 3").
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/stream.hpp"

namespace muster {

enum class ReduceType : std::uint8_t { f32, f64, i64 };
enum class ReduceOp : std::uint8_t { sum, max };

// A collective that has started here and is not complete.
struct PendingCollective {
  std::string what;
  double seconds = 0;        // since it started: its `after` was complete, and its turn had come
  std::vector<int> waiting;  // ranks to or from which messages are open, as far as known
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Among the ranks of this host (MPI_Comm_split_type): this rank's place, and how many there are.
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;

  // send[r] goes to rank r, where it lands in receive[rank()]; sizes must agree pairwise and may be 0.
  // send[rank()] and receive[rank()] are ignored: a rank's own piece needs no copy. Direct point-to-point
  // messages: a rank sends exactly the sum of its send sizes.
  virtual Event all_to_all(std::span<const std::span<const std::byte>> send,
                           std::span<const std::span<std::byte>> receive, const std::string& what,
                           const Event& after = {}) = 0;

  // pieces[r] is rank r's piece; pieces[rank()] is sent to all, the others are filled. The pieces may lie in
  // one array (in place).
  virtual Event all_gather(std::span<const std::span<std::byte>> pieces, const std::string& what,
                           const Event& after = {}) = 0;

  // In place; every rank ends with the same bits: contributions are combined in rank order. Meant for small
  // data (losses, hashes, flags): it goes through a staging buffer of fixed size, piece by piece, and one
  // all_reduce of a communicator ends before the next begins.
  virtual Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                           const Event& after = {}) = 0;

  virtual Event broadcast(std::span<std::byte> data, int root, const std::string& what,
                          const Event& after = {}) = 0;

  virtual Event barrier(const std::string& what) = 0;

  // Ranks with the same color form a communicator, ordered by key, then rank. Blocking.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Bytes that this rank has sent since it started, by collectives of this communicator.
  virtual std::uint64_t bytes_sent() const = 0;

  // The one that started first, for the watchdog; called from any thread.
  virtual std::optional<PendingCollective> oldest_pending() const = 0;

  // Ends every rank of the job at once with this exit code. Does not return.
  [[noreturn]] virtual void abort(int exit_code) = 0;
};

// One blocking exchange of a variable-length byte string from every rank to every rank, in rank order.
std::vector<std::string> gather_strings(Communicator& comm, const std::string& mine, const std::string& what);

}  // namespace muster
