// NcclLink: NCCL's communicator of one rank, made without blocking and watched for failures: NCCL's kernels
// spin for ever when a peer is lost, until someone looks and gives the communicator up.
#pragma once

#include <exception>
#include <functional>
#include <mutex>
#include <nccl.h>
#include <string>

namespace muster {

class NcclLink {
 public:
  // Collective. Throws PeerError when the ranks have not met after `deadline` seconds.
  NcclLink(const ncclUniqueId& id, int ranks, int rank, double deadline);
  ~NcclLink();
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  // Calls `body`, whose calls of NCCL become one group. When this returns, all of it is on its stream.
  void group(const std::string& what, const std::function<void(ncclComm_t)>& body);

  // Asks NCCL whether the peers are there, and throws when one is not. From any thread; it asks nothing while
  // another thread calls NCCL, so that it returns at once in any case.
  void look();
  // Ends NCCL's kernels here, so that streams and those who wait for them go on. The first failure is kept.
  void give_up(std::exception_ptr failure);
  // Throws when the link was given up.
  void expect_sound();

  // Collective. When work is still under way (`quiet` is false) the link is given up instead, and fails.
  void close(bool quiet);

 private:
  // With the mutex held.
  ncclResult_t state() const;
  // Polls until the last call has ended.
  void settle(const std::string& what);

  std::mutex mutex_;  // NCCL wants the calls on a communicator one at a time
  ncclComm_t comm_ = nullptr;
  std::exception_ptr failure_;
  double deadline_;
};

}  // namespace muster
