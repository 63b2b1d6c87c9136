#include "data/inputs/json_text.hpp"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>

namespace muster {
namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
constexpr char32_t replacement = 0xFFFD;

void append_utf8(char32_t code, std::string& out) {
  const auto byte = [&](char32_t bits) { out += static_cast<char>(bits); };
  if (code < 0x80) return byte(code);
  if (code < 0x800) {
    byte(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      byte(0xE0 | code >> 12);
    } else {
      byte(0xF0 | code >> 18);
      byte(0x80 | (code >> 12 & 0x3F));
    }
    byte(0x80 | (code >> 6 & 0x3F));
  }
  byte(0x80 | (code & 0x3F));
}

// The length of the character of UTF-8 at the start of `text`, RFC 3629; 0 if there is none.
std::size_t utf8_character(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : std::uint8_t{0};
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return text.empty() ? 0 : 1;
  if (first < 0xC2 || first > 0xF4 || !continues(1)) return 0;
  if (first < 0xE0) return 2;
  if (!continues(2)) return 0;
  if (first < 0xF0) {
    const bool overlong = first == 0xE0 && second < 0xA0, surrogate = first == 0xED && second > 0x9F;
    return overlong || surrogate ? 0 : 3;
  }
  const bool overlong = first == 0xF0 && second < 0x90, beyond = first == 0xF4 && second > 0x8F;
  return overlong || beyond || !continues(3) ? 0 : 4;
}

class Line {
 public:
  explicit Line(std::string_view line) : line_(line) {
    if (line_.starts_with(byte_order_mark)) at_ = byte_order_mark.size();
  }

  // The fault, if there is one.
  std::optional<std::string> read(std::string& text) {
    if (peek() != '{') return "is no JSON object";
    ++at_;
    bool found = false, is_string = false;
    if (peek() == '}') {
      ++at_;
    } else {
      do {
        std::string key;
        if (!string_with_colon(&key)) return syntax_fault();
        found = found || key == "text";
        if (key == "text" && (is_string = peek() == '"')) {
          text.clear();
          const std::size_t begin = at_;
          if (!string(&text)) return syntax_fault();
          if (const auto fault = first_not_utf8(begin)) return fault;
        } else if (!skip_value()) {
          return syntax_fault();
        }
      } while (take(','));
      if (!take('}')) return syntax_fault();
    }
    peek();
    if (at_ < line_.size()) return syntax_fault();
    if (!found) return "has no field \"text\"";
    if (!is_string) return "has a field \"text\" that is no string";
    return {};
  }

  // Where an object that the line starts with ends; 0 if there is none.
  std::size_t end_of_object() { return peek() == '{' && skip_value() ? at_ : 0; }

 private:
  std::string syntax_fault() const {
    if (at_ >= line_.size()) return "is no JSON object, it ends too early";
    return fmt::format("is no JSON object from its byte {} on", at_ + 1);
  }

  // The next character that is no space; 0 at the end.
  char peek() {
    while (at_ < line_.size() && std::string_view(" \t\r\n").find(line_[at_]) != std::string_view::npos)
      ++at_;
    return at_ < line_.size() ? line_[at_] : '\0';
  }
  bool take(char wanted) {
    if (peek() != wanted || at_ >= line_.size()) return false;
    ++at_;
    return true;
  }

  std::optional<std::uint32_t> hex4(std::size_t at) const {
    if (at + 4 > line_.size()) return {};
    std::uint32_t value = 0;
    for (const char c : line_.substr(at, 4)) {
      const std::size_t digit = std::string_view("0123456789abcdef").find(static_cast<char>(c | 0x20));
      const std::size_t decimal = std::string_view("0123456789").find(c);
      if (decimal == std::string_view::npos && (digit == std::string_view::npos || digit < 10)) return {};
      value = value * 16 + static_cast<std::uint32_t>(std::min(digit, decimal));
    }
    return value;
  }

  // What stands after a backslash and u.
  bool unicode_escape(std::string* out) {
    const auto unit = hex4(at_);
    if (!unit) return false;
    at_ += 4;
    char32_t code = *unit;
    if (code >= 0xD800 && code < 0xE000) {
      const auto low =
          line_.substr(std::min(at_, line_.size())).starts_with("\\u") ? hex4(at_ + 2) : std::nullopt;
      if (code < 0xDC00 && low && *low >= 0xDC00 && *low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (*low - 0xDC00);
        at_ += 6;
      } else {
        code = replacement;
      }
    }
    if (out) append_utf8(code, *out);
    return true;
  }

  // A string, decoded into `out` if there is one.
  bool string(std::string* out) {
    if (!take('"')) return false;
    while (at_ < line_.size()) {
      const std::size_t begin = at_;
      while (at_ < line_.size() && line_[at_] != '"' && line_[at_] != '\\' &&
             static_cast<unsigned char>(line_[at_]) >= 0x20)
        ++at_;
      if (out) out->append(line_, begin, at_ - begin);
      if (at_ == line_.size()) return false;
      if (line_[at_] == '"') {
        ++at_;
        return true;
      }
      if (line_[at_] != '\\') return false;
      if (++at_ == line_.size()) return false;
      if (line_[at_] == 'u') {
        ++at_;
        if (!unicode_escape(out)) return false;
        continue;
      }
      const std::size_t escape = std::string_view("\"\\/bfnrt").find(line_[at_]);
      if (escape == std::string_view::npos) return false;
      if (out) *out += "\"\\/\b\f\n\r\t"[escape];
      ++at_;
    }
    return false;
  }
  bool string_with_colon(std::string* out) { return string(out) && take(':'); }

  bool word_or_number() {
    for (const std::string_view word : {"true", "false", "null", "NaN", "Infinity", "-Infinity"})
      if (line_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return true;
      }
    bool digits = false;
    for (;
         at_ < line_.size() && std::string_view("+-.eE0123456789").find(line_[at_]) != std::string_view::npos;
         ++at_)
      digits |= line_[at_] >= '0' && line_[at_] <= '9';
    return digits;
  }

  // Any value. What is open is held here and not on the stack, so that no depth is too much.
  bool skip_value() {
    std::string open;
    do {
      const char c = peek();
      if (c == '{' || c == '[') {
        ++at_;
        if (!take(c == '{' ? '}' : ']')) {
          open += c;
          if (c == '{' && !string_with_colon(nullptr)) return false;
          continue;
        }
      } else if (c == '"') {
        if (!string(nullptr)) return false;
      } else if (!word_or_number()) {
        return false;
      }
      while (!open.empty() && !take(',')) {
        if (!take(open.back() == '{' ? '}' : ']')) return false;
        open.pop_back();
      }
      if (!open.empty() && open.back() == '{' && !string_with_colon(nullptr)) return false;
    } while (!open.empty());
    return true;
  }

  // Of the bytes from `begin` to where the line was read.
  std::optional<std::string> first_not_utf8(std::size_t begin) const {
    while (begin < at_) {
      const std::size_t length = utf8_character(line_.substr(begin, at_ - begin));
      if (length == 0) return fmt::format("holds text that is no UTF-8, at its byte {}", begin + 1);
      begin += length;
    }
    return {};
  }

  std::string_view line_;
  std::size_t at_ = 0;
};

}  // namespace

std::optional<std::string> text_of_json(std::string_view line, std::string& text) {
  return Line(line).read(text);
}

std::string_view object_at_start(std::string_view text) { return text.substr(0, Line(text).end_of_object()); }

}  // namespace muster
