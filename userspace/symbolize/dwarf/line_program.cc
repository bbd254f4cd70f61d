#include "userspace/symbolize/dwarf/line_program.h"

#include <algorithm>
#include <limits>

#include "userspace/base/strings.h"

namespace pyrometer::dwarf {
namespace {

Status Corrupt(std::string_view what) { return DataLossError(StrFormat("a line program %s", what)); }

// A longer sequence is handed on in pieces.
constexpr size_t kPieceRows = 64u << 10;
// Rows out of order need the whole sequence; more than this are given up [none seen from any compiler].
constexpr size_t kMaxUnsortedRows = 4u << 20;

// Collects one sequence, leaving out rows that say nothing new.
class SequenceRows {
 public:
  const std::vector<LineRow>& rows() const { return rows_; }
  bool sorted() const { return sorted_; }
  void Clear() {
    rows_.clear();
    sorted_ = true;
  }
  void Add(const LineRow& row) {
    if (!rows_.empty()) {
      LineRow& last = rows_.back();
      if (row.address == last.address) {
        last = row;
        if (rows_.size() > 1 && SamePlace(rows_[rows_.size() - 2], row)) rows_.pop_back();
        return;
      }
      if (row.address < last.address) {
        sorted_ = false;
      } else if (SamePlace(last, row)) {
        return;
      }
    }
    rows_.push_back(row);
  }
  // Takes all rows but the last out; that one begins the next piece.
  void KeepLast() { rows_.erase(rows_.begin(), rows_.end() - 1); }
  void Sort() {
    if (sorted_) return;
    std::stable_sort(rows_.begin(), rows_.end(),
                     [](const LineRow& a, const LineRow& b) { return a.address < b.address; });
  }

 private:
  static bool SamePlace(const LineRow& a, const LineRow& b) { return a.file == b.file && a.line == b.line; }

  std::vector<LineRow> rows_;
  bool sorted_ = true;
};

}  // namespace

std::string JoinPath(std::string_view folder, std::string_view name) {
  if (name.starts_with('/') || folder.empty()) return std::string(name);
  std::string path(folder);
  if (!name.empty()) {
    if (!path.ends_with('/')) path += '/';
    path += name;
  }
  return path;
}

Status LineProgram::Open(const LineSources& sources, uint64_t offset, uint8_t address_bytes,
                         std::string_view compilation_folder) {
  compilation_folder_ = compilation_folder;
  names_.clear();
  folders_.clear();
  files_.clear();
  bytes_ = {};
  Window start(sources.line);
  Cursor length_cursor(start.At(offset, 12));
  encoding_ = {.version = 0, .address_bytes = address_bytes, .offset_bytes = 4};
  uint64_t length = length_cursor.U32();
  if (length == 0xffffffff) {
    encoding_.offset_bytes = 8;
    length = length_cursor.U64();
  }
  RETURN_IF_ERROR(start.status());
  if (!length_cursor.ok() || length > sources.line.size() - offset - length_cursor.at()) {
    return Corrupt("lies past the end of its section");
  }
  if (length > kMaxProgramBytes) {
    return ResourceExhaustedError(StrFormat("a line program of %s is more than the limit", FormatBytes(length)));
  }
  ASSIGN_OR_RETURN(bytes_, sources.line.View(offset, length_cursor.at() + length, &buffer_));
  Cursor cursor(bytes_, length_cursor.at());
  encoding_.version = cursor.U16();
  if (cursor.ok() && (encoding_.version < 2 || encoding_.version > 5)) {
    return UnimplementedError(StrFormat("line programs of version %d", encoding_.version));
  }
  if (encoding_.version >= 5) {
    encoding_.address_bytes = cursor.U8();
    cursor.Skip(1);  // size of segment selectors
  }
  const uint64_t header_bytes = cursor.Unsigned(encoding_.offset_bytes);
  if (!cursor.ok() || header_bytes > cursor.left()) return Corrupt("has a header longer than itself");
  program_start_ = cursor.at() + header_bytes;
  min_instruction_bytes_ = cursor.U8();
  max_operations_ = encoding_.version >= 4 ? std::max<uint8_t>(cursor.U8(), 1) : 1;
  cursor.Skip(1);  // default_is_stmt
  line_base_ = static_cast<int8_t>(cursor.U8());
  line_range_ = cursor.U8();
  opcode_base_ = cursor.U8();
  std::fill(std::begin(operand_counts_), std::end(operand_counts_), uint8_t{0});
  for (unsigned i = 1; i < opcode_base_; ++i) operand_counts_[i] = cursor.U8();
  if (!cursor.ok() || encoding_.address_bytes == 0 || encoding_.address_bytes > 8)
    return Corrupt("has no whole header");
  return encoding_.version >= 5 ? ReadTables(&cursor, sources, encoding_) : ReadOldTables(&cursor);
}

LineProgram::File LineProgram::Keep(std::string_view name, uint64_t folder) {
  File file;
  if (names_.size() + name.size() > std::numeric_limits<uint32_t>::max()) name = {};
  file.name = static_cast<uint32_t>(names_.size());
  file.name_bytes = static_cast<uint32_t>(name.size());
  file.folder = static_cast<uint32_t>(std::min<uint64_t>(folder, std::numeric_limits<uint32_t>::max()));
  names_.append(name);
  return file;
}

Status LineProgram::ReadOldTables(Cursor* cursor) {
  // Numbers begin at 1; folder 0 is the compilation's, file 0 is none.
  folders_.push_back({});
  while (true) {
    const std::string_view name = cursor->String();
    if (!cursor->ok()) return Corrupt("has folders without end");
    if (name.empty()) break;
    if (folders_.size() >= kMaxFiles) return ResourceExhaustedError("a line program names too many folders");
    folders_.push_back(Keep(name, 0));
  }
  files_.push_back({});
  while (true) {
    const std::string_view name = cursor->String();
    if (!cursor->ok()) return Corrupt("has files without end");
    if (name.empty()) return OkStatus();
    const uint64_t folder = cursor->Uleb();
    cursor->SkipLeb();  // time
    cursor->SkipLeb();  // size
    if (files_.size() >= kMaxFiles) return ResourceExhaustedError("a line program names too many files");
    files_.push_back(Keep(name, folder));
  }
}

Status LineProgram::ReadTables(Cursor* cursor, const LineSources& sources, const Encoding& encoding) {
  RETURN_IF_ERROR(ReadEntries(cursor, sources, encoding, &folders_));
  return ReadEntries(cursor, sources, encoding, &files_);
}

Status LineProgram::ReadEntries(Cursor* cursor, const LineSources& sources, const Encoding& encoding,
                                std::vector<File>* entries) {
  struct Field {
    uint64_t content;
    uint16_t form;
  };
  std::vector<Field> fields(cursor->U8());
  for (Field& field : fields) {
    field.content = cursor->Uleb();
    const uint64_t form = cursor->Uleb();
    if (form > std::numeric_limits<uint16_t>::max()) return Corrupt("uses an unknown form");
    field.form = static_cast<uint16_t>(form);
  }
  const uint64_t count = cursor->Uleb();
  // Entries without fields would cost nothing, and could be as many as they like.
  if (!cursor->ok() || count > kMaxFiles || (count > cursor->left() && !fields.empty())) {
    return Corrupt("has more files than bytes");
  }
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view name;
    uint64_t folder = 0;
    for (const Field& field : fields) {
      const Value value = ReadValue(cursor, field.form, 0, encoding);
      if (!value.present()) return Corrupt("has a corrupt table of files");
      if (field.content == kLineContentFolderIndex) folder = value.raw;
      if (field.content != kLineContentPath) continue;
      if (value.form == kFormString) {
        Cursor text(bytes_, value.raw);
        name = text.String();
      } else if (value.form == kFormLineStrp && sources.line_strings != nullptr) {
        name = sources.line_strings->String(value.raw);
      } else if (value.form == kFormStrp && sources.strings != nullptr) {
        name = sources.strings->String(value.raw);
      }
    }
    entries->push_back(Keep(name, folder));
  }
  return OkStatus();
}

std::string LineProgram::PathOf(const File& file) const {
  const auto text = [&](const File& entry) { return std::string_view(names_).substr(entry.name, entry.name_bytes); };
  const std::string_view name = text(file);
  if (name.empty() || name.starts_with('/')) return std::string(name);
  std::string folder = file.folder < folders_.size() ? std::string(text(folders_[file.folder])) : std::string();
  // Folder 0 of version 5 is the compilation's folder itself.
  if (encoding_.version < 5 || file.folder != 0 || folder.empty()) folder = JoinPath(compilation_folder_, folder);
  return JoinPath(folder, name);
}

uint32_t LineProgram::FileId(uint64_t index, LineSink* sink) {
  if (index >= files_.size()) return 0;
  File& file = files_[index];
  if (file.id == kNotAsked) {
    const std::string path = PathOf(file);
    file.id = path.empty() ? 0 : sink->File(path);
  }
  return file.id;
}

Status LineProgram::Run(LineSink* sink) {
  if (program_start_ > bytes_.size()) return Corrupt("has no header");
  Cursor cursor(bytes_, program_start_);
  SequenceRows sequence;
  struct State {
    uint64_t address = 0;
    uint64_t operation = 0;
    uint64_t file = 1;
    uint64_t line = 1;
    bool begun = false;   // has a row
    bool wanted = false;  // its first row lies in code
  } state;
  uint32_t file_id = FileId(1, sink);
  const uint8_t line_range = std::max<uint8_t>(line_range_, 1);

  const auto advance = [&](uint64_t operations) {
    if (max_operations_ == 1) [[likely]] {
      state.address += operations * min_instruction_bytes_;
      return;
    }
    const uint64_t total = state.operation + operations;
    state.address += min_instruction_bytes_ * (total / max_operations_);
    state.operation = total % max_operations_;
  };
  const auto emit = [&] {
    if (!state.begun) {
      state.begun = true;
      state.wanted = sink->IsCode(state.address);
    }
    if (!state.wanted) return true;
    sequence.Add({state.address, file_id, static_cast<uint32_t>(state.line)});
    if (sequence.rows().size() < kPieceRows) [[likely]]
      return true;
    if (!sequence.sorted()) return sequence.rows().size() < kMaxUnsortedRows;
    std::vector<LineRow> piece = sequence.rows();
    const uint64_t end = piece.back().address;
    piece.pop_back();
    sequence.KeepLast();
    return sink->Sequence(piece, end);
  };
  const auto too_many = [] { return ResourceExhaustedError("the file has more lines than the limit allows"); };

  while (!cursor.done()) {
    const uint8_t opcode = cursor.U8();
    if (opcode >= opcode_base_) {
      const unsigned adjusted = static_cast<unsigned>(opcode - opcode_base_);
      advance(adjusted / line_range);
      state.line += static_cast<uint64_t>(static_cast<int64_t>(line_base_) + adjusted % line_range);
      if (!emit()) return too_many();
      continue;
    }
    switch (opcode) {
      case 0: {  // extended
        const uint64_t bytes = cursor.Uleb();
        const uint64_t next = cursor.at() + bytes;
        if (!cursor.ok() || bytes > cursor.left()) return Corrupt("ends in the middle of an instruction");
        if (bytes == 0) break;
        const uint8_t extended = cursor.U8();
        if (extended == kLineEndSequence) {
          if (state.begun && state.wanted) {
            sequence.Sort();
            if (!sequence.rows().empty() && state.address > sequence.rows().front().address &&
                !sink->Sequence(sequence.rows(), state.address)) {
              return too_many();
            }
          }
          sequence.Clear();
          state = State();
          file_id = FileId(1, sink);
        } else if (extended == kLineSetAddress) {
          state.address = cursor.Unsigned(static_cast<unsigned>(std::min<uint64_t>(bytes - 1, 8)));
          state.operation = 0;
        } else if (extended == kLineDefineFile && encoding_.version < 5) {
          const std::string_view name = cursor.String();
          const uint64_t folder = cursor.Uleb();
          if (cursor.ok() && files_.size() < kMaxFiles) files_.push_back(Keep(name, folder));
        }
        cursor.Seek(next);
        break;
      }
      case kLineCopy:
        if (!emit()) return too_many();
        break;
      case kLineAdvancePc:
        advance(cursor.Uleb());
        break;
      case kLineAdvanceLine:
        state.line += static_cast<uint64_t>(cursor.Sleb());
        break;
      case kLineSetFile:
        state.file = cursor.Uleb();
        file_id = FileId(state.file, sink);
        break;
      case kLineSetColumn:
      case kLineSetIsa:
        cursor.SkipLeb();
        break;
      case kLineNegateStatement:
      case kLineSetBasicBlock:
      case kLineSetPrologueEnd:
      case kLineSetEpilogueBegin:
        break;
      case kLineConstAddPc:
        advance((255u - opcode_base_) / line_range);
        break;
      case kLineFixedAdvancePc:
        state.address += cursor.U16();
        state.operation = 0;
        break;
      default:
        for (unsigned i = 0; i < operand_counts_[opcode]; ++i) cursor.SkipLeb();
    }
    if (!cursor.ok()) return Corrupt("ends in the middle of an instruction");
  }
  return OkStatus();
}

}  // namespace pyrometer::dwarf
