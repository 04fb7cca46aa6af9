"""Domains, their boundaries with normals, and points on both.

>>> from diffhash.geometry import Box, Disc, Interval
>>> plate = (Box(x=(-1, 1), y=(-1, 1)) - Disc(radius=0.5)) * Interval(t=(0, 1))
>>> plate.axes
('x', 'y', 't')
>>> plate.sample(1000).shape, plate.boundary("surface").sample(200).shape
(torch.Size([1000, 3]), torch.Size([200, 3]))
"""

from diffhash.geometry.ball import Ball, Disc
from diffhash.geometry.boundary import Boundary, Periodic, Surface
from diffhash.geometry.box import Box, Interval
from diffhash.geometry.csg import Difference, Interface, Intersection, Union
from diffhash.geometry.domain import Domain
from diffhash.geometry.mesh import Mesh
from diffhash.geometry.polygon import Polygon
from diffhash.geometry.product import Product

__all__ = [
    "Ball",
    "Boundary",
    "Box",
    "Difference",
    "Disc",
    "Domain",
    "Interface",
    "Intersection",
    "Interval",
    "Mesh",
    "Periodic",
    "Polygon",
    "Product",
    "Surface",
    "Union",
]
