// A CUDA stream, its events and its graphs.
#pragma once

#include <cuda_runtime.h>
#include <memory>

#include "core/stream.hpp"

namespace muster {

class CudaStream final : public Stream {
 public:
  // Of the current GPU. Lower numbers are served first.
  explicit CudaStream(int priority);
  // Waits for its work, as the stream of a thread does.
  ~CudaStream() override;
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void enqueue(Work work) override { work(native()); }
  void copy(void* to, const void* from, std::size_t bytes) override;
  // A point of a CUDA stream is waited for on the device; any other by a host function in this stream's turn,
  // so that the caller never blocks.
  void wait(const Event& event) override;
  Event record() override;
  std::function<double()> timestamp() override;
  std::shared_ptr<void> name_work(const std::function<std::string()>& name) override;
  std::shared_ptr<Recording> capture(const std::function<void()>& append) override;
  void replay(const Recording& recording) override;

  NativeStream native() const { return stream_; }

 private:
  class Failure;
  class Point;
  class Clock;
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  std::shared_ptr<Failure> failure_;  // what an event of the host that this stream waited for has thrown
  std::shared_ptr<Clock> clock_;
};

}  // namespace muster
