// MpiTransport: messages as MPI_Isend and MPI_Irecv, completed by MPI_Testsome.
#pragma once

#include <mpi.h>
#include <vector>

#include "comm/transport.hpp"

namespace muster {

// Throws PeerError with MPI's own words when a call has failed.
void check_mpi(int result, const char* call);

class MpiTransport final : public Transport {
 public:
  // Takes over `comm`. Collective over it.
  explicit MpiTransport(MPI_Comm comm);
  ~MpiTransport() override;
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }
  void send(int peer, int tag, std::span<const std::byte> bytes, Counter& open) override;
  void receive(int peer, int tag, std::span<std::byte> bytes, Counter& open) override;
  bool poll() override;
  void abandon() override;
  std::unique_ptr<Transport> split(int color, int key) override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  struct Message {
    Counter* open;
    int expected;  // bytes to be received; -1 for a message sent
  };
  void complete(const Message& message, const MPI_Status& status) const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  // The same positions in both; kept dense.
  std::vector<MPI_Request> requests_;
  std::vector<Message> messages_;
  // What MPI_Testsome writes.
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace muster
