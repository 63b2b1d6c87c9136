#include "data/inputs/compressed.hpp"

#include <utility>
#include <vector>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/text.hpp"

namespace muster {

// What both formats need: the file, read in pieces.
class Decompressor::Stream {
 public:
  explicit Stream(const std::string& path) : file_(File::open_to_read(path)), input_(std::size_t{1} << 18) {}
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  // Fills some of `bytes`, at least one unless the text ends.
  virtual std::size_t read_some(std::span<char> bytes) = 0;
  std::uint64_t consumed() const { return at_; }

 protected:
  const std::string& path() const { return file_.path(); }
  // The next bytes of the file; none at its end.
  std::span<std::byte> more() {
    const std::size_t bytes = file_.read_some(input_, at_);
    at_ += bytes;
    return std::span(input_).first(bytes);
  }
  UserError damaged(const char* what) const {
    return UserError("{} cannot be decompressed: {}: restore it or compress it again", path(), what);
  }

 private:
  File file_;
  std::vector<std::byte> input_;
  std::uint64_t at_ = 0;
};

class Decompressor::Gzip : public Stream {
 public:
  explicit Gzip(const std::string& path) : Stream(path) {
    constexpr int largest_window = 15, gzip_alone = 16;
    check(inflateInit2(&state_, largest_window + gzip_alone) == Z_OK, "zlib does not start");
  }
  ~Gzip() override { inflateEnd(&state_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

  std::size_t read_some(std::span<char> bytes) override {
    state_.next_out = reinterpret_cast<Bytef*>(bytes.data());
    state_.avail_out = static_cast<uInt>(bytes.size());
    while (state_.avail_out == bytes.size()) {
      if (state_.avail_in == 0) {
        const std::span<std::byte> input = more();
        if (input.empty() && in_member_) throw damaged("it is cut short");
        if (input.empty()) break;
        state_.next_in = reinterpret_cast<Bytef*>(input.data());
        state_.avail_in = static_cast<uInt>(input.size());
      }
      in_member_ = true;
      const int result = inflate(&state_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        in_member_ = false;
        inflateReset(&state_);
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        throw damaged(state_.msg ? state_.msg : "it is damaged");
      }
    }
    return bytes.size() - state_.avail_out;
  }

 private:
  z_stream state_{};
  bool in_member_ = true;
};

class Decompressor::Zstd : public Stream {
 public:
  explicit Zstd(const std::string& path) : Stream(path), state_(ZSTD_createDStream()) {
    check(state_ != nullptr, "zstd does not start");
    ZSTD_DCtx_setParameter(state_, ZSTD_d_windowLogMax, largest_window);
  }
  ~Zstd() override { ZSTD_freeDStream(state_); }
  Zstd(const Zstd&) = delete;
  Zstd& operator=(const Zstd&) = delete;

  std::size_t read_some(std::span<char> bytes) override {
    ZSTD_outBuffer out{bytes.data(), bytes.size(), 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !flushing_) {
        const std::span<std::byte> input = more();
        if (input.empty() && in_frame_) throw damaged("it is cut short");
        if (input.empty()) break;
        in_ = {input.data(), input.size(), 0};
      }
      const std::size_t result = ZSTD_decompressStream(state_, &out, &in_);
      if (ZSTD_getErrorCode(result) == ZSTD_error_frameParameter_windowTooLarge)
        throw UserError("{} needs more than {} of memory to decompress it: do that by zstd -d --long=31",
                        path(), human_bytes(std::uint64_t{1} << largest_window));
      if (ZSTD_isError(result)) throw damaged(ZSTD_getErrorName(result));
      in_frame_ = result != 0;
      flushing_ = in_frame_ && out.pos == out.size;  // it may hold more than there was room for
    }
    return out.pos;
  }

 private:
  // As `zstd --long=29` writes it. A file of a few bytes may ask for it.
  static constexpr int largest_window = 29;

  ZSTD_DStream* state_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool in_frame_ = true, flushing_ = false;
};

Compression compression_of(const std::string& path, std::string_view start) {
  if (start.starts_with("\x1F\x8B")) return Compression::gzip;
  if (start.starts_with("\x28\xB5\x2F\xFD")) return Compression::zstd;
  constexpr std::string_view xz{"\xFD\x37zXZ\0", 6}, zip = "PK\3\4";
  if (start.starts_with(xz)) throw UserError("{} is compressed by xz: decompress it by xz -d", path);
  if (start.starts_with("BZh") && start.size() > 4 && start[4] == '1')
    throw UserError("{} is compressed by bzip2: decompress it by bzip2 -d", path);
  if (start.starts_with(zip)) throw UserError("{} is an archive of zip: unpack it by unzip", path);
  return Compression::none;
}

Decompressor::Decompressor(const std::string& path, Compression compression) {
  if (compression == Compression::gzip)
    stream_ = std::make_unique<Gzip>(path);
  else
    stream_ = std::make_unique<Zstd>(path);
}

Decompressor::~Decompressor() = default;

std::size_t Decompressor::read(std::span<char> bytes) {
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const std::size_t more = stream_->read_some(bytes.subspan(filled));
    if (more == 0) break;
    filled += more;
  }
  return filled;
}

std::uint64_t Decompressor::consumed() const { return stream_->consumed(); }

}  // namespace muster
