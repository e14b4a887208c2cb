// Where the pixels of AMX tiles lie; part of conv_amx.cc. A tile takes 16 pixels that lie at one distance from each other: from a line.
// A line is the rows of an image one after the other, with what lies between them computed in vain; or one row; or, where that would
// leave too much of the tiles unused, a copy of what the pixels read.

// Output pixels as rows and columns. Images of one pixel are one row together.
struct Grid {
  int64_t columns, rows;
  int64_t x_column, x_row, x_image, y_column, y_row, y_image, r_column, r_row, r_image;

  explicit Grid(const ConvArgs& a, int64_t pixels) {
    const ConvShape& s = a.shape;
    columns = s.out_w, rows = s.out_h;
    x_column = s.stride_w * a.x_pixel, x_row = s.stride_h * a.x_row, x_image = a.x_image;
    y_column = a.y_pixel, y_row = a.y_row, y_image = a.y_image;
    r_column = a.r_pixel, r_row = a.r_row, r_image = a.r_image;
    if (rows * columns > 1) return;
    columns = pixels;
    x_column = a.x_image, y_column = a.y_image, r_column = a.r_image;
  }

  // Row `row` counts over all images.
  int64_t x(int64_t row) const { return row / rows * x_image + row % rows * x_row; }
};

// Position q of a line is column q % period of row `row` + q / period; it is a pixel where that is one of the grid's columns.
struct Line {
  const uint8_t* x;       // of position 0
  int64_t row, period;
  int64_t begin, end;     // the positions wanted
  int64_t last;           // the last position at which a tile may begin
};

enum class LineKind { image, row, copy };

inline int64_t tiles_of(int64_t positions) { return (positions + 15) / 16; }

// The kind of line with which tiles take the least time: 16 cycles a step for 16 outputs, and about 24 to copy a tile's inputs.
struct LinePlan {
  LineKind kind = LineKind::row;
  int64_t period, length;  // of a line
  int64_t tile;            // pixels of a tile

  LinePlan(const Grid& grid, int64_t pixels, int64_t outputs, bool may_copy) : period(grid.columns), length(grid.columns) {
    const int64_t rows = (pixels + grid.columns - 1) / grid.columns;
    int64_t tiles = rows * tiles_of(grid.columns);
    if (grid.rows > 1 && grid.x_row % grid.x_column == 0 && grid.x_row / grid.x_column >= grid.columns) {
      const int64_t between = grid.x_row / grid.x_column, positions = between * (grid.rows - 1) + grid.columns;
      const int64_t whole = rows * tiles_of(positions) / grid.rows;
      if (whole < tiles) tiles = whole, kind = LineKind::image, period = between, length = positions;
    }
    const int64_t columns = tiles_of(outputs), copied = tiles_of(pixels) * (16 * columns + 24);
    if (may_copy && copied * 20 < tiles * 16 * columns * 19) kind = LineKind::copy, period = grid.columns, length = pixels;
    tile = kind == LineKind::copy || length > 16 ? 16 : length;
  }
};
