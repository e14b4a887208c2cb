#include "model/wire.h"

#include <cstring>

#include "base/error.h"

namespace tritkit {
namespace {
[[noreturn]] void damaged(const char* what) {
  bad_model(std::string("the file is damaged or not an ONNX file: ") + what);
}
}  // namespace

int64_t WireField::as_int64() const {
  if (type != varint) damaged("a number is stored with the wrong type");
  return static_cast<int64_t>(number);
}

std::string_view WireField::as_bytes() const {
  if (type != bytes_type) damaged("a text or a message is stored with the wrong type");
  return bytes;
}

float WireField::as_float() const {
  if (type != fixed32) damaged("a float is stored with the wrong type");
  const uint32_t bits = static_cast<uint32_t>(number);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint64_t WireReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(take(1)[0]);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (shift == 63 && byte > 1) damaged("a number exceeds 64 bits");
      return value;
    }
  }
  damaged("a number exceeds 64 bits");
}

int64_t WireReader::packed_varint() { return static_cast<int64_t>(varint()); }

std::string_view WireReader::take(uint64_t count) {
  if (count > rest_.size()) damaged("it ends inside a field");
  std::string_view result = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return result;
}

bool WireReader::next(WireField* field) {
  if (rest_.empty()) return false;
  const uint64_t key = varint();
  if (key >> 3 == 0 || key >> 3 > 0x1fffffff) damaged("a field has an impossible number");
  *field = WireField();
  field->tag = static_cast<uint32_t>(key >> 3);
  field->type = static_cast<WireField::Type>(key & 7);
  switch (field->type) {
    case WireField::varint: field->number = varint(); return true;
    case WireField::fixed64: field->number = packed_fixed<uint64_t>(); return true;
    case WireField::bytes_type: field->bytes = take(varint()); return true;
    case WireField::fixed32: field->number = packed_fixed<uint32_t>(); return true;
  }
  damaged("a field has an unknown type");
}

}  // namespace tritkit
