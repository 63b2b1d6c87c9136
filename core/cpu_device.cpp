#include "core/device.hpp"
#include "core/host.hpp"

namespace muster {
namespace {

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }
  std::string name() const override { return "cpu"; }
  std::string fingerprint() const override { return "cpu"; }
  const Memory& memory() const override { return host_memory(); }
  const Memory& staging() const override { return host_memory(); }
  std::unique_ptr<Stream> make_stream(StreamPriority) const override {
    return std::make_unique<InlineStream>();
  }
  std::uint64_t available_bytes() const override { return available_host_bytes(); }
  std::uint64_t held_bytes() const override { return resident_bytes(); }
};

}  // namespace

std::unique_ptr<Device> cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace muster
