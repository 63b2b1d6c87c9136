// Signs of life among the ranks of a job: each tells the others of its pulse from time to time, on its progress thread,
// whatever its own thread is at. A rank that is stopped as a whole falls silent. (64 bytes to each other rank every few
// seconds: of a thousand ranks each sends some 200 a second.)
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/progress.hpp"
#include "comm/transport.hpp"
#include "comm/vigil.hpp"
#include "core/stream.hpp"

namespace muster {

class SignsOfLife {
 public:
  virtual ~SignsOfLife() = default;

  // Calls hear(rank, sign) for each that has come since the last call; from any thread.
  virtual void collect(const std::function<void(int rank, const Sign& sign)>& hear) = 0;
  // In the order of a job's end: returns when all ranks have come to leave.
  virtual void leave() = 0;
};

// Tells what `mine` returns every `interval` seconds. Collective is only the making of `transport`, which is its own.
std::unique_ptr<SignsOfLife> exchange_signs(std::shared_ptr<ProgressThread> progress,
                                            std::unique_ptr<Transport> transport, std::function<Sign()> mine,
                                            double interval);

}  // namespace muster
