// The protobuf wire format, read without trust: every length, number and type is checked against the bytes that are there.
#pragma once
#include <cstdint>
#include <string_view>

namespace tritkit {

// One field of a message. Exactly one of `number` (varint, fixed64, fixed32) and `bytes` (length-delimited) has meaning.
struct WireField {
  enum Type : uint32_t { varint = 0, fixed64 = 1, bytes_type = 2, fixed32 = 5 };
  uint32_t tag = 0;
  Type type = varint;
  uint64_t number = 0;
  std::string_view bytes;

  // The value where the schema says so; a field of another wire type is a damaged file.
  int64_t as_int64() const;
  std::string_view as_bytes() const;
  float as_float() const;
};

class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}
  bool next(WireField* field);  // false at the end of the message
  bool done() const { return rest_.empty(); }
  int64_t packed_varint();  // elements of a packed field, while !done()
  template <typename T>
  T packed_fixed() {
    T value;
    take(sizeof(T)).copy(reinterpret_cast<char*>(&value), sizeof(T));
    return value;
  }

 private:
  uint64_t varint();
  std::string_view take(uint64_t count);
  std::string_view rest_;
};

}  // namespace tritkit
