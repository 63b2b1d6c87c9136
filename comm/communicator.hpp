// Communicator: collectives among ranks, in bytes, counts and types. It knows nothing of models.
//
// Every collective is asynchronous: it starts when `after` is complete and everything issued before it on
// this communicator has started, and returns an Event that completes it. Memory given to a collective must
// stay untouched until then. All ranks issue the same collectives in the same order; `what` names a
// collective in the watchdog's report ("all_gather of parameters, bucket 3"). Memory is the host's or a GPU's:
// that of the device for which the communicator was made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/pulse.hpp"
#include "core/stream.hpp"

namespace muster {

class SignsOfLife;
struct Sign;

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

  // Many small ones at once: each of `rounds` as all_gather takes its pieces. All is complete when every event is.
  virtual std::vector<Event> all_gathers(std::span<const std::vector<std::span<std::byte>>> rounds,
                                         const std::string& what, const Event& after = {});

  // In place; every rank ends with the same bits. Meant for small data (losses, hashes, flags). Contributions
  // are combined in rank order, but where the backend sums (see sums): there in an order of its own.
  virtual Event all_reduce(std::span<std::byte> data, ReduceType type, ReduceOp op, const std::string& what,
                           const Event& after = {}) = 0;

  virtual Event broadcast(std::span<std::byte> data, int root, const std::string& what,
                          const Event& after = {}) = 0;

  // Whether this backend sums by itself, on its way: faster, but in an order of its own, so that bits depend
  // on the number of ranks. Where not, all_to_all and a sum in a fixed order do the same.
  virtual bool sums() const { return false; }

  // For backends that sum. pieces[r] is this rank's contribution to what rank r is to have: the sum over all
  // ranks, which is left in its pieces[rank()]; the other pieces are undefined afterwards. Sizes agree on all
  // ranks. Fastest when the pieces are of equal size and lie in one array, in order.
  virtual Event reduce_scatter(std::span<const std::span<float>> pieces, const std::string& what,
                               const Event& after = {});

  // Complete when every rank has come here. It waits neither for collectives nor for a device's streams.
  virtual Event barrier(const std::string& what) = 0;

  // Ranks with the same color form a communicator, ordered by key, then rank. Blocking.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Bytes that this rank has sent since it started, by collectives of this communicator: what its pieces
  // amount to for the other ranks. Counted when a collective starts, or already when it is issued.
  virtual std::uint64_t bytes_sent() const = 0;

  // The one that started first, for the watchdog; called from any thread. Throws PeerError when it finds that
  // a peer was lost.
  virtual std::optional<PendingCollective> oldest_pending() const = 0;

  // What this rank's thread is at. The watchdog of the communicator reads it.
  Pulse& pulse() { return pulse_; }
  // Signs of life among its ranks, of which `mine` makes this one's (comm/signs_of_life.hpp); null where there is nobody
  // to give any, or no way. Collective.
  virtual std::unique_ptr<SignsOfLife> exchange_signs(const std::function<Sign()>& mine, double interval);

  // Ends every rank of the job at once with this exit code. Does not return.
  [[noreturn]] virtual void abort(int exit_code) = 0;

 private:
  Pulse pulse_;
};

// One blocking exchange of a variable-length byte string from every rank to every rank, in rank order.
std::vector<std::string> gather_strings(Communicator& comm, const std::string& mine, const std::string& what);

}  // namespace muster
